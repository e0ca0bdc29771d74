//! Layers side by side: a few at a time, and the first failure ends the others.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::error::ImageError;

/// Layers at once. More would not be faster: inflating and deflating are what takes the time.
const WORKERS: usize = 3;

/// Calls `work` for each item and returns what it gave, in the order of the items. The first failure is the one that is
/// returned, and sets `failed`: work that takes long looks at it and ends.
pub fn each<'i, I: Sync, T: Send>(
    items: &'i [I],
    failed: &AtomicBool,
    work: impl Fn(&'i I) -> Result<T, ImageError> + Sync,
) -> Result<Vec<T>, ImageError> {
    let queue = Mutex::new(items.iter().enumerate());
    let done = Mutex::new(Ok(Vec::new()));
    let worker = || {
        loop {
            // A poisoned lock means that another worker panicked, and the scope will say so.
            let Some((at, item)) = queue.lock().ok().and_then(|mut queue| queue.next()) else { return };
            if failed.load(Ordering::Relaxed) {
                return;
            }
            let result = work(item);
            let Ok(mut done) = done.lock() else { return };
            match (result, &mut *done) {
                (Ok(result), Ok(all)) => all.push((at, result)),
                (Err(error), Ok(_)) => {
                    failed.store(true, Ordering::Relaxed);
                    *done = Err(error);
                }
                // Only the first failure is told: the others follow from it.
                (_, Err(_)) => return,
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..WORKERS.min(items.len()) {
            scope.spawn(worker);
        }
        worker();
    });
    // A worker that panicked has taken the process with it, or the scope has panicked above.
    let mut all = done.into_inner().unwrap_or_else(PoisonError::into_inner)?;
    all.sort_by_key(|(at, _)| *at);
    Ok(all.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_items() {
        let (second_is_done, wait) = mpsc::channel();
        let wait = Mutex::new(wait);
        let numbers = each(&[1, 2], &AtomicBool::new(false), |number| {
            match number {
                1 => wait.lock().unwrap().recv().unwrap(),
                _ => second_is_done.send(()).unwrap(),
            }
            Ok(*number)
        });
        assert_eq!(numbers.unwrap(), [1, 2]);
    }

    #[test]
    fn the_first_failure_ends_the_others() {
        let failed = AtomicBool::new(false);
        let items: Vec<u64> = (0..100).collect();
        let begun = Mutex::new(0);
        let error = each(&items, &failed, |_: &u64| {
            *begun.lock().unwrap() += 1;
            Err::<(), _>(ImageError::NoImage { word: "x".to_owned() })
        });
        assert!(matches!(error, Err(ImageError::NoImage { .. })), "{error:?}");
        assert!(failed.load(Ordering::Relaxed));
        assert!(*begun.lock().unwrap() <= WORKERS);
    }
}
