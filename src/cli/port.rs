//! `evenkeel port`: where a container's ports are published.

use clap::Args;
use serde::Serialize;

use super::context::Context;
use super::each;
use super::failure::{Exit, Failure};
use super::output::{Format, Output};
use crate::model::port::{HostPort, Protocol};

#[derive(Debug, Args)]
pub struct PortArguments {
    /// NAME, NAME.REPLICA, PROJECT/NAME or the beginning of an id
    name: String,

    /// Only this one: 80, 53/udp
    #[arg(value_parser = inside)]
    port: Option<(u16, Protocol)>,
}

#[derive(Debug, Serialize)]
struct Row {
    container_port: u16,
    protocol: Protocol,
    host: HostPort,
}

fn inside(text: &str) -> Result<(u16, Protocol), String> {
    let (port, protocol) = match text.split_once('/') {
        None | Some((_, "tcp")) => (text.trim_end_matches("/tcp"), Protocol::Tcp),
        Some((port, "udp")) => (port, Protocol::Udp),
        Some(_) => return Err("expected `tcp` or `udp` after the slash".to_owned()),
    };
    port.parse().map(|port| (port, protocol)).map_err(|_| "expected a port, such as 80 or 53/udp".to_owned())
}

pub fn run(arguments: &PortArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let record = each::one(&arguments.name, context)?;
    let rows = record.spec.ports.iter().map(|(host, port)| Row {
        container_port: *port,
        protocol: host.protocol,
        host: *host,
    });
    let is_meant = |row: &Row| arguments.port.is_none_or(|port| port == (row.container_port, row.protocol));
    let mut rows: Vec<Row> = rows.filter(is_meant).collect();
    rows.sort_by_key(|row| (row.container_port, row.protocol, row.host));
    if let (Some((port, protocol)), []) = (arguments.port, rows.as_slice()) {
        return Err(Failure::new(format!("port {port}/{protocol} of `{}` is not published", record.full_name())));
    }
    match output.format() {
        Format::Json => output.document(&rows)?,
        Format::Text => {
            let side = |host: &HostPort| host.to_string().trim_end_matches("/udp").to_owned();
            let line = |row: &Row| match arguments.port {
                Some(_) => format!("{}\n", side(&row.host)),
                None => format!("{}/{} -> {}\n", row.container_port, row.protocol, side(&row.host)),
            };
            output.text(&rows.iter().map(line).collect::<String>())?;
        }
    }
    Ok(Exit::Done)
}
