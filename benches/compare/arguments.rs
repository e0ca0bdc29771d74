//! What the program is asked for. It starts itself again, twice, on the way into a sandbox: those are roles, too.

use std::ffi::OsString;
use std::path::PathBuf;

const USAGE: &str = "usage: cargo bench --bench compare -- [--quick] [--runs N] [--only CASE].. [--contender NAME].. \
[--json FILE]";

/// What to measure.
#[derive(Debug, Clone, Default)]
pub struct Arguments {
    /// How often the short cases run; the long ones run a third of that. Medians are reported.
    pub runs: usize,
    pub cases: Vec<String>,
    pub contenders: Vec<String>,
    pub json: Option<PathBuf>,
}

/// Which part this process has.
pub enum Role {
    Compare(Arguments),
    /// Joins the cgroups of this name, makes the namespaces, and goes on as `inside`.
    Enter {
        group: String,
        inside: Vec<OsString>,
    },
    /// Measures one contender, as the first process of the sandbox.
    Contend {
        contender: String,
        arguments: Arguments,
        results: PathBuf,
    },
}

impl Arguments {
    pub fn wants_case(&self, name: &str) -> bool {
        self.cases.is_empty() || self.cases.iter().any(|wanted| wanted == name)
    }

    pub fn wants_contender(&self, name: &str) -> bool {
        self.contenders.is_empty() || self.contenders.iter().any(|wanted| wanted == name)
    }

    /// How often a case runs that takes `weight` times as long as a short one.
    pub fn runs(&self, weight: usize) -> usize {
        (self.runs / weight).max(1)
    }

    /// The same, for the process inside.
    pub fn to_arguments(&self) -> Vec<OsString> {
        let mut list: Vec<OsString> = vec!["--runs".into(), self.runs.to_string().into()];
        for case in &self.cases {
            list.extend(["--only".into(), case.into()]);
        }
        list
    }
}

pub fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Role, String> {
    let mut left = arguments;
    let mut parsed = Arguments { runs: 9, ..Arguments::default() };
    let mut contend = None;
    while let Some(option) = left.next() {
        let option = option.into_string().map_err(|option| format!("{}: not an option", option.display()))?;
        let mut value = || left.next().ok_or_else(|| format!("{option}: a value is missing\n{USAGE}"));
        match option.as_str() {
            "--enter" => {
                let group = text(value()?)?;
                return Ok(Role::Enter { group, inside: left.collect() });
            }
            "--contend" => contend = Some((text(value()?)?, PathBuf::from(value()?))),
            "--quick" => parsed.runs = 1,
            "--runs" => parsed.runs = text(value()?)?.parse().map_err(|_| format!("--runs: not a number\n{USAGE}"))?,
            "--only" => parsed.cases.push(text(value()?)?),
            "--contender" => parsed.contenders.push(text(value()?)?),
            "--json" => parsed.json = Some(value()?.into()),
            // What cargo itself adds.
            "--bench" => {}
            _ => return Err(format!("{option}: unknown option\n{USAGE}")),
        }
    }
    Ok(match contend {
        Some((contender, results)) => Role::Contend { contender, arguments: parsed, results },
        None => Role::Compare(parsed),
    })
}

fn text(value: OsString) -> Result<String, String> {
    value.into_string().map_err(|value| format!("{}: not UTF-8", value.display()))
}
