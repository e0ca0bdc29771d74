//! `evenkeel container commit`: an image of a container's image and what the container changed in it.

use std::time::SystemTime;

use clap::{ArgAction, Args};
use serde_json::json;

use crate::cli::by_hand::PATIENCE;
use crate::cli::context::Context;
use crate::cli::each;
use crate::cli::failure::{Exit, Failure};
use crate::cli::image;
use crate::cli::kill::running;
use crate::cli::output::{Format, Output};
use crate::engine::image::commit::Committing;
use crate::model::actual::Liveness;
use crate::model::record::ContainerRecord;
use crate::model::status::Phase;
use crate::monitor::client::{Client, Held};
use crate::monitor::error::MonitorError;

#[derive(Debug, Args)]
pub struct CommitArguments {
    /// NAME, NAME.REPLICA, PROJECT/NAME or the beginning of an id
    #[arg(value_name = "CONTAINER")]
    container: String,

    /// The name of the image: `REPOSITORY[:TAG]`
    #[arg(value_name = "REFERENCE")]
    name: Option<String>,

    /// Who made it
    #[arg(short, long, value_name = "NAME")]
    author: Option<String>,

    /// For the image's history
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,

    /// An instruction of a Dockerfile that changes the configuration, such as `CMD ["serve"]`; repeatable
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    changes: Vec<String>,

    /// Whether processes are frozen meanwhile
    #[arg(short, long, value_name = "BOOL", action = ArgAction::Set, default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    pause: bool,
}

/// What keeps the processes of a container frozen.
enum Pause {
    /// For as long as this process lives.
    Held(Held),
    /// Until it is ended: a monitor of an earlier Evenkeel knows no other.
    Begun(Client),
}

impl Pause {
    fn begin(record: &ContainerRecord, context: &Context) -> Result<Pause, Failure> {
        let held = match running(record, context)?.hold() {
            Err(MonitorError::Refused(_)) => {
                let client = running(record, context)?;
                client.pause().map(|()| Pause::Begun(client))
            }
            held => held.map(Pause::Held),
        };
        held.map_err(|error| {
            let failure = Failure::monitor(error).context(format!("cannot pause container `{}`", record.full_name()));
            failure.hint("`--pause=false` does without")
        })
    }

    /// It goes on, and that is known when this comes back. One that was stopped meanwhile, or goes on already, does not.
    fn end(self) -> Result<(), MonitorError> {
        let ended = match self {
            Pause::Held(held) => held.resume(),
            Pause::Begun(client) => client.resume(),
        };
        match ended {
            Err(MonitorError::Refused(_) | MonitorError::NotRunning { .. } | MonitorError::Conversation { .. }) => {
                Ok(())
            }
            ended => ended,
        }
    }
}

pub fn run(arguments: &CommitArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let name = arguments.name.as_deref().map(image::name).transpose()?;
    let record = each::one(&arguments.container, context)?;
    let host = context.host()?;
    let _lock = host.lock(PATIENCE).map_err(Failure::engine)?;
    let committing = Committing {
        name,
        author: arguments.author.as_deref(),
        message: arguments.message.as_deref(),
        changes: &arguments.changes,
        created: SystemTime::now(),
    };
    let liveness = crate::cli::inventory::liveness(host.paths(), &record).map_err(Failure::engine)?;
    // One that somebody froze before stays frozen afterwards.
    let is_frozen = matches!(&liveness, Liveness::Monitored(status) if status.phase == Phase::Paused);
    let pauses = arguments.pause && liveness.is_up() && !is_frozen;
    let pause = pauses.then(|| Pause::begin(&record, context)).transpose()?;
    let committed = host.commit(&record, &committing).map_err(Failure::engine);
    let ended = pause.map_or(Ok(()), Pause::end);
    let image = committed?;
    if let Err(error) = ended {
        output.warning(&format!("container `{}` may be paused still: {error}", record.full_name()));
    }
    match output.format() {
        Format::Json => output.document(&json!({ "id": image.id }))?,
        Format::Text => output.text(&format!("{}\n", image.id))?,
    }
    Ok(Exit::Done)
}
