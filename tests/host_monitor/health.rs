//! Health checks by command, HTTP and TCP.

use std::io::{Read, Write};
use std::net::TcpListener;

use evenkeel::model::health::{Health, Healthcheck, Probe};
use evenkeel::model::units::Timespan;

use crate::fixture::Container;

fn quick(probe: Probe) -> Option<Healthcheck> {
    Some(Healthcheck {
        interval: Timespan::from_millis(100),
        timeout: Timespan::from_secs(2),
        retries: 2,
        start_interval: Timespan::from_millis(100),
        ..Healthcheck::of(probe)
    })
}

fn await_health(container: &Container, health: Health) -> String {
    let status = container.await_status(|status| status.health.as_ref().is_some_and(|status| status.health == health));
    status.health.unwrap().log.last().map(|answer| answer.output.clone()).unwrap_or_default()
}

fn command(line: &str) -> Probe {
    Probe::Command(["/bin/sh", "-c", line].map(str::to_owned).to_vec())
}

#[test]
fn a_command_turns_it_unhealthy_and_back() {
    let mut container = Container::of("touch /tmp/well; sleep 1000");
    container.launch.healthcheck = quick(command("test -e /tmp/well || { echo not well; exit 1; }"));
    let pid = container.start();
    await_health(&container, Health::Healthy);
    std::fs::remove_file(container.root().join("tmp/well")).unwrap();
    assert_eq!(await_health(&container, Health::Unhealthy), "not well\n");
    std::fs::write(container.root().join("tmp/well"), "").unwrap();
    await_health(&container, Health::Healthy);
    assert_eq!(container.status().pid, Some(pid));
}

#[test]
fn a_command_that_takes_too_long_or_is_not_there_is_unhealthy() {
    let mut container = Container::of("sleep 1000");
    container.launch.healthcheck = quick(command("echo waiting; sleep 77777"));
    container.launch.healthcheck.as_mut().unwrap().timeout = Timespan::from_millis(150);
    container.start();
    assert!(await_health(&container, Health::Unhealthy).starts_with("no answer within 150ms"));
    // What it has said by then tells what it waits for.
    container.await_status(|status| {
        let log = status.health.iter().flat_map(|health| &health.log);
        log.into_iter().any(|answer| answer.output == "no answer within 150ms, but: waiting\n")
    });
    container.launch.healthcheck = quick(Probe::Command(vec!["/bin/nothing".into()]));
    container.write_launch();
    container.client().reload().unwrap();
    container.await_status(|status| {
        let health = status.health.as_ref();
        health.and_then(|health| health.log.last()).is_some_and(|answer| answer.output.contains("/bin/nothing"))
    });
    // What took too long was killed, not left behind: of each probe nothing but the workload remains.
    crate::fixture::wait_for(
        || (container.cgroup().processes().unwrap().len() <= 2).then_some(()),
        || format!("{:?}", container.cgroup().processes()),
    );
}

#[test]
fn much_output_does_not_block_a_check_and_is_cut() {
    let mut container = Container::of("sleep 1000");
    container.launch.healthcheck = quick(command("seq 1 100000; exit 1"));
    container.start();
    assert_eq!(await_health(&container, Health::Unhealthy).len(), 4096);
}

/// Answers every connection with this status until told otherwise.
fn serve(status: &'static std::sync::Mutex<&'static str>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 1024];
            // A probe that gave up is not this server's problem.
            let _ = stream.read(&mut request);
            let _ = stream.write_all(format!("HTTP/1.1 {}\r\n\r\n", *status.lock().unwrap()).as_bytes());
        }
    });
    port
}

#[test]
fn http_and_tcp_are_asked_without_a_process_in_the_container() {
    static STATUS: std::sync::Mutex<&str> = std::sync::Mutex::new("200 OK");
    let port = serve(&STATUS);
    let mut container = Container::of("exec sleep 1000");
    container.launch.healthcheck = quick(Probe::Http { port, path: "/".into() });
    container.start();
    assert_eq!(await_health(&container, Health::Healthy), "HTTP/1.1 200 OK");
    assert_eq!(container.cgroup().processes().unwrap().len(), 1);
    *STATUS.lock().unwrap() = "503 Service Unavailable";
    assert_eq!(await_health(&container, Health::Unhealthy), "HTTP/1.1 503 Service Unavailable");
    container.launch.healthcheck = quick(Probe::Tcp { port });
    container.write_launch();
    container.client().reload().unwrap();
    await_health(&container, Health::Healthy);
}

#[test]
fn a_port_inside_the_containers_own_network_is_asked_there() {
    let netns = crate::names::Netns::new("probe");
    let mut container = Container::of("httpd -f -p 127.0.0.1:8080");
    container.launch.netns = Some(netns.path());
    let path = netns.path().to_string_lossy().into_owned();
    container.config["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .push(serde_json::json!({ "type": "network", "path": path }));
    container.launch.healthcheck = quick(Probe::Http { port: 8080, path: "/etc/passwd".into() });
    container.start();
    assert_eq!(await_health(&container, Health::Healthy), "HTTP/1.1 200 OK");
}
