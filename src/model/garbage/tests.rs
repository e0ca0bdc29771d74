//! The choice by cases, and over generated stores.

use proptest::prelude::*;

use super::*;

const HOUR: u64 = 3600;
const NOW: u64 = 1000 * HOUR;

fn digest(kind: char, number: usize) -> Digest {
    format!("sha256:{kind}{number:063x}").parse().unwrap()
}

fn name(number: usize) -> ImageSource {
    ImageSource::Reference(format!("localhost/i{number}:1"))
}

fn hours_ago(hours: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOW - hours * HOUR)
}

/// An image with a name, a configuration and these layers of 10 bytes each, last used so many hours ago.
fn image(facts: &mut Facts, number: usize, layers: &[usize], hours: u64) {
    let layers: BTreeSet<Digest> = layers.iter().map(|layer| digest('a', *layer)).collect();
    facts.layers.extend(layers.iter().map(|layer| (layer.clone(), 10)));
    let blobs = BTreeSet::from([digest('b', number)]);
    facts.blobs.extend(blobs.iter().map(|blob| (blob.clone(), 1)));
    facts.images.push(ImageFact {
        id: digest('b', number),
        names: [name(number)].into(),
        manifests: [digest('c', number)].into(),
        layers,
        blobs,
        used: hours_ago(hours),
    });
}

fn step(facts: &mut Facts, number: usize, layer: usize, hours: u64) {
    facts.layers.insert(digest('a', layer), 10);
    facts.steps.push(StepFact { key: digest('d', number), layer: digest('a', layer), used: hours_ago(hours) });
}

fn policy(extent: Extent) -> Policy {
    Policy { extent, only: None, unused_for: Duration::from_secs(24 * HOUR), now: hours_ago(0) }
}

/// Images as `i1`, layers as `l1`, blobs as `b1`, steps as `s1`.
fn chosen(facts: &Facts, needs: &Needs, policy: &Policy) -> Vec<String> {
    let short =
        |kind: char, digest: &Digest| format!("{kind}{}", usize::from_str_radix(&digest.hex()[1..], 16).unwrap());
    let words = choose(facts, needs, policy).into_iter().map(|chosen| match chosen.thing {
        Thing::Image(id) => short('i', &id),
        Thing::Layer(id) => short('l', &id),
        Thing::Blob(id) => short('b', &id),
        Thing::Step(id) => short('s', &id),
        Thing::Cache(name) | Thing::Record(name) => name,
    });
    words.collect()
}

#[test]
fn what_belongs_to_nothing_goes_in_every_case_and_nothing_else_where_nothing_is_wished() {
    let mut facts = Facts::default();
    image(&mut facts, 1, &[1], 900);
    facts.layers.insert(digest('a', 9), 10);
    facts.blobs.insert(digest('b', 9), 1);
    facts.damaged.insert("built/x.json".to_owned());
    assert_eq!(chosen(&facts, &Needs::default(), &policy(Extent::Nothing)), ["built/x.json", "l9", "b9"]);
}

#[test]
fn dangling_ones_go_alone_and_layers_that_others_have_stay() {
    let mut facts = Facts::default();
    image(&mut facts, 1, &[1, 2], 900);
    image(&mut facts, 2, &[1, 3], 900);
    facts.images[0].names.clear();
    assert_eq!(chosen(&facts, &Needs::default(), &policy(Extent::Dangling)), ["i1", "l2", "b1"]);
    assert_eq!(chosen(&facts, &Needs::default(), &policy(Extent::All)), ["i1", "i2", "l1", "l2", "l3", "b1", "b2"]);
}

#[test]
fn each_kind_of_need_keeps_an_image() {
    let mut facts = Facts::default();
    for number in 1..=5 {
        image(&mut facts, number, &[number], 900);
    }
    let mut needs = Needs {
        made_of: [digest('b', 1)].into(),
        images: [digest('b', 2)].into(),
        manifests: [digest('c', 3)].into(),
        ..Needs::default()
    };
    needs.add_source(&name(4));
    assert_eq!(chosen(&facts, &needs, &policy(Extent::All)), ["i5", "l5", "b5"]);
    // A locked reference has the image by its manifest, whatever it was pulled as.
    needs.add_source(&ImageSource::Reference(format!("localhost/other:1@{}", digest('c', 5))));
    assert!(chosen(&facts, &needs, &policy(Extent::All)).is_empty());
}

#[test]
fn nothing_goes_while_an_image_of_a_container_is_not_known() {
    let mut facts = Facts::default();
    image(&mut facts, 1, &[1], 900);
    facts.layers.insert(digest('a', 9), 10);
    let needs = Needs { made_of: [digest('b', 7)].into(), ..Needs::default() };
    assert_eq!(needs.unknown(&facts), Some(&digest('b', 7)));
    assert!(chosen(&facts, &needs, &policy(Extent::All)).is_empty());
}

#[test]
fn the_longest_unused_go_until_enough_is_free() {
    let mut facts = Facts::default();
    image(&mut facts, 1, &[1], 30);
    image(&mut facts, 2, &[2], 50);
    image(&mut facts, 3, &[3], 40);
    image(&mut facts, 4, &[4], 2);
    step(&mut facts, 1, 5, 45);
    facts.caches.push(CacheFact { name: "cache".to_owned(), bytes: 100, used: hours_ago(60) });
    let free = |bytes| chosen(&facts, &Needs::default(), &policy(Extent::Bytes(bytes)));
    assert!(free(0).is_empty());
    assert_eq!(free(100), ["cache"]);
    assert_eq!(free(101), ["cache", "i2", "l2", "b2"]);
    assert_eq!(free(111), ["cache", "i2", "s1", "l2", "l5", "b2"]);
    let all = ["cache", "i2", "s1", "i3", "i1", "l1", "l2", "l3", "l5", "b1", "b2", "b3"];
    assert_eq!(free(u64::MAX), all, "what was used today stays");
}

#[test]
fn what_would_free_nothing_stays_where_space_is_wanted() {
    let mut facts = Facts::default();
    image(&mut facts, 1, &[1], 90);
    image(&mut facts, 2, &[1, 2], 80);
    let needs = Needs { made_of: [digest('b', 2)].into(), ..Needs::default() };
    assert!(chosen(&facts, &needs, &policy(Extent::Bytes(5))).is_empty());
    assert_eq!(chosen(&facts, &needs, &policy(Extent::All)), ["i1", "b1"]);
}

#[test]
fn what_builds_keep_goes_with_everything_and_not_with_single_images() {
    let mut facts = Facts::default();
    image(&mut facts, 1, &[1, 2], 90);
    step(&mut facts, 1, 1, 90);
    step(&mut facts, 2, 3, 90);
    let only = |images: &[usize]| Policy {
        only: Some(images.iter().map(|number| digest('b', *number)).collect()),
        ..policy(Extent::All)
    };
    assert_eq!(chosen(&facts, &Needs::default(), &only(&[1])), ["i1", "l2", "b1"]);
    let needs = Needs { made_of: [digest('b', 1)].into(), ..Needs::default() };
    assert_eq!(chosen(&facts, &needs, &policy(Extent::All)), ["s2", "l3"], "its image has the other's layer");
}

#[test]
fn space_is_wanted_from_the_high_mark_on_down_to_the_low_one() {
    let config = GcConfig { high: 85, low: 75, ..GcConfig::default() };
    let excess = |used, available| Disk { used, available }.excess(&config);
    assert_eq!(excess(84, 16), None);
    assert_eq!(excess(85, 15), Some(10));
    assert_eq!(excess(100, 0), Some(25));
    assert_eq!(excess(0, 0), None);
    let whole = GcConfig { high: 100, low: 0, ..config };
    assert_eq!(Disk { used: u64::MAX, available: 0 }.excess(&whole), Some(u64::MAX));
}

/// Stores of a few images and steps that share a few layers.
fn stores() -> impl Strategy<Value = (Facts, Needs)> {
    let images = prop::collection::vec((prop::collection::vec(0_usize..6, 0..4), 0_u64..60, 0_u8..6), 0..7);
    let steps = prop::collection::vec((0_usize..8, 0_u64..60), 0..4);
    (images, steps, prop::collection::vec(0_u64..30, 6..9)).prop_map(|(images, steps, sizes)| {
        let (mut facts, mut needs) = (Facts::default(), Needs::default());
        for (number, (layers, hours, need)) in images.iter().enumerate() {
            image(&mut facts, number, layers, *hours);
            match need {
                0 => drop(needs.made_of.insert(digest('b', number))),
                1 => drop(needs.images.insert(digest('b', number))),
                2 => drop(needs.manifests.insert(digest('c', number))),
                3 => needs.add_source(&name(number)),
                4 => facts.images[number].names.clear(),
                _ => {}
            }
        }
        for (number, (layer, hours)) in steps.iter().enumerate() {
            step(&mut facts, number, *layer, *hours);
        }
        facts.layers.extend(sizes.iter().enumerate().map(|(layer, size)| (digest('a', layer), *size)));
        (facts, needs)
    })
}

fn extents() -> impl Strategy<Value = Extent> {
    prop_oneof![Just(Extent::Nothing), Just(Extent::Dangling), Just(Extent::All), (0_u64..100).prop_map(Extent::Bytes),]
}

proptest! {
    #[test]
    fn nothing_goes_that_is_needed_or_young_or_that_something_staying_has((facts, needs) in stores(), extent in extents()) {
        let policy = policy(extent);
        let going = choose(&facts, &needs, &policy);
        let goes = |thing: Thing| going.iter().any(|chosen| chosen.thing == thing);
        for image in &facts.images {
            let stays = needs.has(image) || image.used > policy.now - policy.unused_for;
            prop_assert!(!(stays && goes(Thing::Image(image.id.clone()))));
            if !goes(Thing::Image(image.id.clone())) {
                prop_assert!(image.layers.iter().all(|layer| !goes(Thing::Layer(layer.clone()))));
                prop_assert!(image.blobs.iter().all(|blob| !goes(Thing::Blob(blob.clone()))));
            }
        }
        for step in facts.steps.iter().filter(|step| !goes(Thing::Step(step.key.clone()))) {
            prop_assert!(!goes(Thing::Layer(step.layer.clone())));
        }
    }

    #[test]
    fn nothing_stays_behind_that_belongs_to_nothing((facts, needs) in stores(), extent in extents()) {
        let going = choose(&facts, &needs, &policy(extent));
        let goes = |thing: &Thing| going.iter().any(|chosen| chosen.thing == *thing);
        let images = facts.images.iter().filter(|image| !goes(&Thing::Image(image.id.clone())));
        let steps = facts.steps.iter().filter(|step| !goes(&Thing::Step(step.key.clone())));
        let held: BTreeSet<&Digest> =
            images.flat_map(|image| &image.layers).chain(steps.map(|step| &step.layer)).collect();
        for layer in facts.layers.keys() {
            prop_assert_eq!(goes(&Thing::Layer(layer.clone())), !held.contains(layer));
        }
        let contents = |chosen: &Chosen| matches!(chosen.thing, Thing::Layer(_) | Thing::Blob(_));
        prop_assert!(going.is_sorted_by_key(contents), "names go before contents");
    }

    #[test]
    fn removing_stops_as_soon_as_enough_is_free_and_takes_the_longest_unused((facts, needs) in stores(), wanted in 1_u64..100) {
        let going = choose(&facts, &needs, &policy(Extent::Bytes(wanted)));
        let freed = |things: &[Chosen]| things.iter().map(|chosen| match &chosen.thing {
            Thing::Layer(layer) => facts.layers[layer],
            _ => 0,
        }).sum::<u64>();
        let all = choose(&facts, &needs, &policy(Extent::Bytes(u64::MAX)));
        prop_assert!(freed(&going) >= wanted.min(freed(&all)));
        let names = |things: &[Chosen]| {
            let named = things.iter().filter(|chosen| matches!(chosen.thing, Thing::Image(_) | Thing::Step(_)));
            named.map(|chosen| chosen.thing.clone()).collect::<Vec<_>>()
        };
        let (some, whole) = (names(&going), names(&all));
        prop_assert_eq!(&some[..], &whole[..some.len()], "a beginning of the same order");
        let uses: Vec<SystemTime> = whole.iter().map(|thing| match thing {
            Thing::Image(id) => facts.images.iter().find(|image| image.id == *id).unwrap().used,
            Thing::Step(key) => facts.steps.iter().find(|step| step.key == *key).unwrap().used,
            other => panic!("{other:?}"),
        }).collect();
        prop_assert!(uses.is_sorted());
        // Without the last one too little would be free.
        if let Some((last, before)) = some.split_last() {
            let without: BTreeSet<Digest> = before.iter().filter_map(|thing| match thing {
                Thing::Image(id) => Some(id.clone()),
                _ => None,
            }).collect();
            if matches!(last, Thing::Image(_)) && before.len() == without.len() {
                let fewer = Policy { only: Some(without), ..policy(Extent::All) };
                prop_assert!(freed(&choose(&facts, &needs, &fewer)) < wanted);
            }
        }
    }
}
