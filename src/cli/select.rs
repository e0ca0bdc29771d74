//! Which containers a word on the command line means.
//!
//! `web` is an instance, `web.2` its second replica, `shop/web` says of which project, and the beginning of an
//! identifier (four digits or more) means that container. A bare instance is looked for in every project of the
//! state root; where several have it, the project of the manifest at hand decides.

use crate::model::id::{Instance, ProjectName};
use crate::model::record::ContainerRecord;

use super::failure::Failure;

const SHORTEST_PREFIX: usize = 4;

/// The project at hand. It is asked for only where a name needs it, since that reads manifests.
pub type TieBreak<'a> = &'a dyn Fn() -> Result<Option<ProjectName>, Failure>;

/// The one container that `word` means.
pub fn one<'a>(
    records: &'a [ContainerRecord],
    word: &str,
    tie_break: TieBreak<'_>,
) -> Result<&'a ContainerRecord, Failure> {
    let found = matching(records, word, &|record: &ContainerRecord, instance: &Instance| record.instance == *instance);
    match narrowed(found, tie_break)?.as_slice() {
        [record] => Ok(record),
        [] => Err(unknown(records, word)),
        several => Err(ambiguous(several, word)),
    }
}

/// Every container that one of the words means, in the order of `records`; all of them when there is no word. A
/// name without a number means all its replicas.
pub fn many<'a>(
    records: &'a [ContainerRecord],
    words: &[String],
    tie_break: TieBreak<'_>,
) -> Result<Vec<&'a ContainerRecord>, Failure> {
    if words.is_empty() {
        return Ok(records.iter().collect());
    }
    let mut chosen = Vec::new();
    for word in words {
        chosen.extend(named(records, word, tie_break)?);
    }
    Ok(records.iter().filter(|record| chosen.iter().any(|other| other.id == record.id)).collect())
}

/// The containers that `word` means, all the replicas of a name without a number. At least one.
pub fn named<'a>(
    records: &'a [ContainerRecord],
    word: &str,
    tie_break: TieBreak<'_>,
) -> Result<Vec<&'a ContainerRecord>, Failure> {
    let found = sought(records, word, tie_break)?;
    if found.is_empty() {
        return Err(unknown(records, word));
    }
    Ok(found)
}

/// The same, and nothing where there is none.
pub fn sought<'a>(
    records: &'a [ContainerRecord],
    word: &str,
    tie_break: TieBreak<'_>,
) -> Result<Vec<&'a ContainerRecord>, Failure> {
    let covers = |record: &ContainerRecord, instance: &Instance| {
        record.instance.container == instance.container
            && (instance.replica == 1 || record.instance.replica == instance.replica)
    };
    let found = narrowed(matching(records, word, &covers), tie_break)?;
    match of_several_projects(&found) {
        true => Err(ambiguous(&found, word)),
        false => Ok(found),
    }
}

fn matching<'a>(
    records: &'a [ContainerRecord],
    word: &str,
    covers: &dyn Fn(&ContainerRecord, &Instance) -> bool,
) -> Vec<&'a ContainerRecord> {
    // Docker's names begin with one, and so do those that `inspect` shows under its words.
    let word = word.strip_prefix('/').unwrap_or(word);
    let (project, name) = match word.split_once('/') {
        Some((project, name)) => (Some(project), name),
        None => (None, word),
    };
    if let Ok(instance) = name.parse::<Instance>() {
        let named: Vec<_> = records
            .iter()
            .filter(|record| project.is_none_or(|project| record.project.as_str() == project))
            .filter(|record| covers(record, &instance))
            .collect();
        if !named.is_empty() {
            return named;
        }
    }
    let is_prefix = project.is_none() && name.len() >= SHORTEST_PREFIX;
    records.iter().filter(|record| is_prefix && record.id.as_str().starts_with(name)).collect()
}

/// Where several projects have it, those of the project at hand, if there are any.
fn narrowed<'a>(found: Vec<&'a ContainerRecord>, tie_break: TieBreak<'_>) -> Result<Vec<&'a ContainerRecord>, Failure> {
    if !of_several_projects(&found) {
        return Ok(found);
    }
    let project = tie_break()?;
    let ours: Vec<_> = found.iter().copied().filter(|record| record.project.project() == project.as_ref()).collect();
    Ok(if ours.is_empty() { found } else { ours })
}

fn of_several_projects(found: &[&ContainerRecord]) -> bool {
    found.windows(2).any(|pair| pair[0].project != pair[1].project)
}

/// What to say of a word that means none.
pub fn unknown(records: &[ContainerRecord], word: &str) -> Failure {
    let failure = Failure::new(format!("there is no container `{word}`"));
    let with_project = word.contains('/');
    let name = |record: &ContainerRecord| match with_project {
        true => record.full_name(),
        false => record.instance.to_string(),
    };
    let nearest = records
        .iter()
        .map(|record| (strsim::damerau_levenshtein(&name(record), word), name(record)))
        .min()
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1));
    match nearest {
        _ if word.ends_with(".toml") => failure.hint("name a manifest with `--file`: `logs -f` follows"),
        Some((_, candidate)) => failure.hint(format!("did you mean `{candidate}`?")),
        None if records.is_empty() => failure.hint("this state root has no containers: `evenkeel apply` makes them"),
        None => failure.hint("`evenkeel ps` lists what there is"),
    }
}

fn ambiguous(found: &[&ContainerRecord], word: &str) -> Failure {
    let list: Vec<_> = found.iter().map(|record| format!("{} ({})", record.full_name(), record.id)).collect();
    Failure::new(format!("`{word}` means several containers: {}", list.join(", ")))
        .hint("give PROJECT/NAME or the beginning of the id")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::container::{AfterEnd, ContainerSpec};
    use crate::model::image::ImageSource;
    use crate::model::record::RECORD_VERSION;

    fn record(project: &str, instance: &str, id: &str) -> ContainerRecord {
        ContainerRecord {
            version: RECORD_VERSION,
            id: id.parse().unwrap(),
            project: project.parse().unwrap(),
            instance: instance.parse().unwrap(),
            spec: ContainerSpec::of(ImageSource::Reference("docker.io/library/busybox:latest".into())),
            image: None,
            addresses: BTreeMap::new(),
            network_of: None,
            users: None,
            way_out: Default::default(),
            after_end: AfterEnd::Keep,
            refused: None,
            before: None,
        }
    }

    fn world() -> Vec<ContainerRecord> {
        vec![
            record("blog", "db", "aaaa00000001"),
            record("blog", "front", "aaaa00000002"),
            record("shop", "db", "bbbb00000001"),
            record("shop", "web", "bbbb00000002"),
            record("shop", "web.2", "bbbb00000003"),
        ]
    }

    fn id_of(word: &str, project: Option<&str>) -> Result<String, String> {
        let project = || Ok(project.map(|name| name.parse().unwrap()));
        one(&world(), word, &project).map(|r| r.id.to_string()).map_err(|failure| format!("{failure:?}"))
    }

    #[test]
    fn an_instance_a_full_name_and_an_id_mean_one_container() {
        assert_eq!(id_of("web", None).unwrap(), "bbbb00000002");
        assert_eq!(id_of("web.2", None).unwrap(), "bbbb00000003");
        assert_eq!(id_of("blog/db", None).unwrap(), "aaaa00000001");
        assert_eq!(id_of("/web", None).unwrap(), "bbbb00000002");
        assert_eq!(id_of("/blog/db", None).unwrap(), "aaaa00000001");
        assert_eq!(id_of("aaaa00000002", None).unwrap(), "aaaa00000002");
    }

    #[test]
    fn the_project_at_hand_decides_between_equal_names() {
        assert!(id_of("db", None).unwrap_err().contains("several"));
        assert_eq!(id_of("db", Some("shop")).unwrap(), "bbbb00000001");
        assert_eq!(id_of("front", Some("shop")).unwrap(), "aaaa00000002");
    }

    #[test]
    fn a_misspelt_name_gets_the_nearest() {
        assert!(id_of("wbe", None).unwrap_err().contains("did you mean `web`?"));
        assert!(id_of("shop/wbe", None).unwrap_err().contains("did you mean `shop/web`?"));
        assert!(id_of("zzzzzzzz", None).unwrap_err().contains("evenkeel ps"));
    }

    #[test]
    fn an_id_prefix_that_fits_several_is_refused() {
        assert!(id_of("bbbb", None).unwrap_err().contains("several"));
        assert!(id_of("bbb", None).unwrap_err().contains("no container"));
    }

    #[test]
    fn a_bare_name_means_all_its_replicas_where_several_may_be_meant() {
        let count = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            many(&world(), &words, &|| Ok(None)).map(|found| found.len()).map_err(|failure| format!("{failure:?}"))
        };
        assert_eq!(count(&[]), Ok(5));
        assert_eq!(count(&["web"]), Ok(2));
        assert_eq!(count(&["web.2"]), Ok(1));
        assert_eq!(count(&["web", "web.2", "blog/db"]), Ok(3));
        assert!(count(&["db"]).is_err());
    }
}
