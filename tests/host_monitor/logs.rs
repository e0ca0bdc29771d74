//! Both streams in files, rotation, following.

use evenkeel::model::container::Logging;
use evenkeel::model::status::Phase;
use evenkeel::model::units::ByteSize;
use evenkeel::monitor::logs::{Reader, Selection, Stream};

use crate::fixture::{Container, wait_for};

#[test]
fn both_streams_are_logged_with_their_last_words() {
    let container = Container::of("echo out; echo err >&2; printf 'no newline'");
    container.start();
    container.await_phase(Phase::Exited);
    let mut reader = Reader::open(&container.launch.logs, &Selection::default()).unwrap();
    let entries = std::iter::from_fn(|| reader.next().unwrap()).map(|passage| passage.into_entry().unwrap());
    let mut entries: Vec<_> = entries.map(|entry| (entry.stream, entry.text)).collect();
    entries.sort();
    let expected = [(Stream::Stdout, "no newline"), (Stream::Stdout, "out\n"), (Stream::Stderr, "err\n")];
    assert_eq!(entries, expected.map(|(stream, text)| (stream, text.to_owned())));
}

#[test]
fn logs_are_bounded_and_followed_over_rotations() {
    let mut container = Container::of("seq 1 20000; sleep 1000");
    container.launch.logging = Logging { max_size: ByteSize(200_000), max_files: 50 };
    let mut reader = Reader::open(&container.launch.logs, &Selection::default()).unwrap();
    container.start();
    let seen = std::cell::RefCell::new(Vec::new());
    let reader = std::cell::RefCell::new(&mut reader);
    wait_for(
        || {
            while let Some(passage) = reader.borrow_mut().next().unwrap() {
                seen.borrow_mut().push(passage.into_entry().unwrap().text.trim().parse::<u32>().unwrap());
            }
            (seen.borrow().last() == Some(&20_000)).then_some(())
        },
        || format!("{:?}", seen.borrow().last()),
    );
    assert_eq!(*seen.borrow(), (1..=20_000).collect::<Vec<_>>());
    for file in std::fs::read_dir(&container.launch.logs).unwrap() {
        assert!(file.unwrap().metadata().unwrap().len() <= 200_000);
    }
    let tail = Selection { tail: Some(3), since: None };
    let mut tail = Reader::open(&container.launch.logs, &tail).unwrap();
    let last: Vec<_> =
        std::iter::from_fn(|| tail.next().unwrap()).map(|passage| passage.into_entry().unwrap().text).collect();
    assert_eq!(last, ["19998\n", "19999\n", "20000\n"]);
}

#[test]
fn log_settings_change_while_it_runs() {
    let mut container = Container::of("while :; do seq 1 100; sleep 0.01; done");
    container.launch.logging = Logging { max_size: ByteSize(10_000), max_files: 5 };
    let pid = container.start();
    let oldest = |age: u32| container.launch.logs.join(format!("container.log.{age}"));
    wait_for(|| oldest(4).exists().then_some(()), || "no rotation".into());
    container.launch.logging.max_files = 2;
    container.write_launch();
    container.client().reload().unwrap();
    wait_for(|| (!oldest(4).exists() && !oldest(2).exists()).then_some(()), || "still five".into());
    assert_eq!(container.status().pid, Some(pid));
}
