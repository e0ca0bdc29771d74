//! Many small looks, shared out among the processors.

use std::num::NonZero;
use std::panic::resume_unwind;

/// A thread has at least so many containers to look at: it costs as much as looking at a few.
const LEAST: usize = 8;

/// How many of `all` one thread looks at, so that every processor has some.
pub(super) fn share(all: usize) -> usize {
    // Counting the processors opens files of cgroups. One thread looks at a few without.
    if all <= LEAST {
        return LEAST;
    }
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    all.div_ceil(processors).max(LEAST)
}

/// What `look` says of each, in their order. The calling thread has a share itself.
pub(crate) fn each<T: Sync, R: Send>(items: &[T], look: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let share = share(items.len());
    let (own, others) = items.split_at(share.min(items.len()));
    let visit = |some: &[T]| some.iter().map(&look).collect::<Vec<R>>();
    let visit = &visit;
    std::thread::scope(|threads| {
        let visits: Vec<_> = others.chunks(share).map(|some| threads.spawn(move || visit(some))).collect();
        let mut all = visit(own);
        all.extend(visits.into_iter().flat_map(|visit| visit.join().unwrap_or_else(|panic| resume_unwind(panic))));
        all
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_out_or_out_of_order() {
        for count in [0, 1, LEAST, 2 * LEAST + 1, 100 * LEAST] {
            let numbers: Vec<usize> = (0..count).collect();
            assert_eq!(each(&numbers, |number| number + 1), (1..=count).collect::<Vec<_>>());
        }
    }
}
