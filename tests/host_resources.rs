//! `linux.resources`, and where processes run and their memory comes from, as the files of cgroups and /proc show it
//! (runtime-spec, config-linux.md, "Control groups" and "Memory policy"). Needs root.

mod support;

use std::fs;
use std::path::PathBuf;

use evenkeel::runtime::cgroup::{Controller, Layout, detect};
use serde_json::{Value, json};
use support::oci::Bundle;

fn is_v1() -> bool {
    detect().unwrap().layout() == Layout::V1
}

/// A file of the container's cgroup.
fn path(bundle: &Bundle, controller: &str, file: &str) -> PathBuf {
    let controller = if is_v1() { controller } else { "" };
    PathBuf::from(format!("/sys/fs/cgroup/{controller}{}/{file}", bundle.cgroup))
}

fn read(bundle: &Bundle, controller: &str, file: &str) -> String {
    fs::read_to_string(path(bundle, controller, file)).unwrap().trim().to_owned()
}

fn with_resources(resources: Value) -> Bundle {
    let mut bundle = Bundle::of(&["sleep", "600"]);
    bundle.config["linux"]["resources"] = resources;
    bundle
}

/// Updates from standard input, as conmon's callers do.
fn update(bundle: &Bundle, resources: &Value) {
    fs::write(bundle.path("resources"), resources.to_string()).unwrap();
    let mut command = bundle.command(&["update", "--resources", "-", "box"]);
    command.stdin(fs::File::open(bundle.path("resources")).unwrap());
    let said = bundle.finish(command);
    assert_eq!(said.code, 0, "{said:?}");
}

/// A disk of this host.
fn disk() -> (u64, u64, String) {
    let numbers = |name: &str| fs::read_to_string(format!("/sys/block/{name}/dev")).unwrap().trim().to_owned();
    let has_size = |name: &str| fs::read_to_string(format!("/sys/block/{name}/size")).unwrap().trim() != "0";
    let mut names = fs::read_dir("/sys/block").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let text = numbers(&names.find(|name| has_size(name)).expect("this host has a disk"));
    let (major, minor) = text.split_once(':').unwrap();
    (major.parse().unwrap(), minor.parse().unwrap(), text)
}

#[test]
fn disks_are_throttled_and_update_lifts_it() {
    let (major, minor, name) = disk();
    let rate = |rate: u64| json!([{"major": major, "minor": minor, "rate": rate}]);
    let bundle = with_resources(json!({"blockIO": {
        "throttleReadBpsDevice": rate(1 << 20), "throttleWriteBpsDevice": rate(2 << 20),
        "throttleReadIOPSDevice": rate(300), "throttleWriteIOPSDevice": rate(400),
    }}));
    bundle.ok(&["create", "box"]);
    let v1 = |file: &str| read(&bundle, "blkio", &format!("blkio.throttle.{file}_device"));
    if is_v1() {
        assert_eq!(v1("read_bps"), format!("{name} 1048576"));
        assert_eq!(v1("write_bps"), format!("{name} 2097152"));
        assert_eq!(v1("read_iops"), format!("{name} 300"));
        assert_eq!(v1("write_iops"), format!("{name} 400"));
        let pid = bundle.pid().to_string();
        assert_eq!(read(&bundle, "blkio", "cgroup.procs"), pid, "the process must be where it is limited");
    } else {
        assert_eq!(read(&bundle, "", "io.max"), format!("{name} rbps=1048576 wbps=2097152 riops=300 wiops=400"));
    }
    update(&bundle, &json!({"blockIO": {"throttleReadBpsDevice": rate(0), "throttleWriteIOPSDevice": rate(500)}}));
    if is_v1() {
        assert_eq!((v1("read_bps"), v1("write_iops")), (String::new(), format!("{name} 500")));
        assert_eq!(v1("read_iops"), format!("{name} 300"));
    } else {
        assert_eq!(read(&bundle, "", "io.max"), format!("{name} rbps=max wbps=2097152 riops=300 wiops=500"));
    }
}

#[test]
fn memory_and_processors_have_all_their_settings() {
    let memory = json!({"limit": 64 << 20, "swap": 96 << 20, "reservation": 32 << 20});
    let cpu = json!({"shares": 512, "quota": 40000, "period": 80000, "burst": 20000});
    let mut bundle = with_resources(json!({"memory": memory, "cpu": cpu}));
    if is_v1() {
        let memory = &mut bundle.config["linux"]["resources"]["memory"];
        memory["swappiness"] = json!(7);
        memory["disableOOMKiller"] = json!(true);
        memory["kernelTCP"] = json!(8 << 20);
        // What the kernel does anyway is no error.
        memory["useHierarchy"] = json!(true);
        memory["checkBeforeUpdate"] = json!(true);
        memory["kernel"] = json!(-1);
    }
    bundle.ok(&["create", "box"]);
    if is_v1() {
        let memory = |file: &str| read(&bundle, "memory", &format!("memory.{file}"));
        assert_eq!(memory("limit_in_bytes"), (64 << 20).to_string());
        assert_eq!(memory("memsw.limit_in_bytes"), (96 << 20).to_string());
        assert_eq!(memory("soft_limit_in_bytes"), (32 << 20).to_string());
        assert_eq!(memory("kmem.tcp.limit_in_bytes"), (8 << 20).to_string());
        assert_eq!(memory("swappiness"), "7");
        assert!(memory("oom_control").contains("oom_kill_disable 1"));
        let cpu = |file: &str| read(&bundle, "cpu", &format!("cpu.{file}"));
        assert_eq!((cpu("shares"), cpu("cfs_quota_us")), ("512".into(), "40000".into()));
        assert_eq!((cpu("cfs_period_us"), cpu("cfs_burst_us")), ("80000".into(), "20000".into()));
        // Below what may be saved up now.
        bundle.ok(&["update", "box", "--cpu-quota", "10000", "--cpu-burst", "5000"]);
        assert_eq!((cpu("cfs_quota_us"), cpu("cfs_burst_us")), ("10000".into(), "5000".into()));
        bundle.ok(&["update", "box", "--cpu-burst", "30000", "--cpu-quota", "50000", "--memory-swap", "-1"]);
        assert_eq!((cpu("cfs_quota_us"), cpu("cfs_burst_us")), ("50000".into(), "30000".into()));
    } else {
        let value = |file: &str| read(&bundle, "", file);
        assert_eq!((value("memory.max"), value("memory.swap.max")), ((64 << 20).to_string(), (32 << 20).to_string()));
        assert_eq!(value("memory.low"), (32 << 20).to_string());
        assert_eq!((value("cpu.max"), value("cpu.max.burst")), ("40000 80000".into(), "20000".into()));
        bundle.ok(&["update", "box", "--cpu-period", "50000"]);
        assert_eq!(value("cpu.max"), "40000 50000");
    }
}

#[test]
fn a_processor_can_be_given_to_idle_and_to_real_time() {
    let bundle = with_resources(json!({"cpu": {"idle": 1}}));
    bundle.ok(&["create", "box"]);
    assert_eq!(read(&bundle, "cpu", "cpu.idle"), "1");
    bundle.ok(&["update", "box", "--cpu-idle", "0"]);
    assert_eq!(read(&bundle, "cpu", "cpu.idle"), "0");
    let real_time = with_resources(json!({"cpu": {"realtimePeriod": 500000, "realtimeRuntime": 10000}}));
    if path(&bundle, "cpu", "cpu.rt_runtime_us").exists() {
        real_time.ok(&["create", "box"]);
        assert_eq!(read(&real_time, "cpu", "cpu.rt_period_us"), "500000");
        assert_eq!(read(&real_time, "cpu", "cpu.rt_runtime_us"), "10000");
    } else {
        let field = if is_v1() { "rt_" } else { "realtimeRuntime" };
        let error = real_time.error(&["create", "box"]);
        assert!(error.contains(field), "{error}");
    }
}

#[test]
fn what_this_host_cannot_limit_is_named_and_leaves_nothing() {
    let controllers = detect().unwrap().controllers();
    let has = |controller: Controller| controllers.contains(&controller);
    let mut cases = vec![
        (json!({"memory": {"kernel": 1 << 20}}), "memory.kernel"),
        (json!({"memory": {"useHierarchy": false}}), "memory.useHierarchy"),
        (json!({"rdma": {"mlx5_1": {}}}), "rdma"),
        (json!({"blockIO": {"leafWeight": 20}}), "blockIO.leafWeight"),
    ];
    if !has(Controller::Hugetlb) {
        cases.push((json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 1 << 21}]}), "hugepageLimits"));
    }
    if !has(Controller::Rdma) {
        cases.push((json!({"rdma": {"mlx5_1": {"hcaHandles": 3}}}), "rdma"));
    }
    if !has(Controller::NetCls) {
        cases.push((json!({"network": {"classID": 1}}), "network.classID"));
    }
    if !has(Controller::NetPrio) {
        cases.push((json!({"network": {"priorities": [{"name": "lo", "priority": 1}]}}), "network.priorities"));
    }
    if is_v1() {
        cases.push((json!({"unified": {"memory.high": "1000000"}}), "unified"));
    } else {
        cases.push((json!({"memory": {"swappiness": 1}}), "memory.swappiness"));
        cases.push((json!({"memory": {"disableOOMKiller": true}}), "memory.disableOOMKiller"));
        cases.push((json!({"unified": {"mystery.max": "1"}}), "mystery"));
        cases.push((json!({"unified": {"memory": "1"}}), "unified"));
    }
    for (resources, field) in cases {
        let bundle = with_resources(resources.clone());
        let error = bundle.error(&["create", "box"]);
        assert!(error.contains(field), "{resources}: {error}");
        assert!(!bundle.has_cgroup(), "{resources}");
    }
    // As callers write that there is no limit.
    let nothing = json!({"blockIO": {"weight": 0, "weightDevice": []}, "hugepageLimits": [], "network": {}, "rdma": {},
        "memory": {"limit": 0, "kernel": -1}, "unified": {}});
    with_resources(nothing).ok(&["create", "box"]);
}

#[test]
fn exec_begins_and_ends_on_the_processors_that_it_is_given() {
    let mut bundle = Bundle::of(&["sleep", "600"]);
    // It is not about the first process (config.md, `execCPUAffinity`).
    bundle.config["process"]["execCPUAffinity"] = json!({"initial": "0", "final": "0"});
    bundle.ok(&["create", "box"]);
    let allowed = |pid: &str| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t")).unwrap().to_owned()
    };
    assert_eq!(allowed(&bundle.pid().to_string()), allowed("self"));
    let exec = |affinity: Value| {
        let process = json!({"args": ["grep", "Cpus_allowed_list", "/proc/self/status"], "cwd": "/",
            "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin"], "execCPUAffinity": affinity});
        fs::write(bundle.path("process"), process.to_string()).unwrap();
        bundle.call(&["exec", "--process", "process", "box"])
    };
    // What is left of it after the move the kernel decides: before Linux 6.2 a version 2 cgroup with a cpuset gives all of
    // its processors.
    let left = exec(json!({"initial": "0"})).out;
    let is_reset = !is_v1() && left == format!("Cpus_allowed_list:\t{}\n", allowed("self"));
    assert!(left == "Cpus_allowed_list:\t0\n" || is_reset, "{left}");
    assert_eq!(exec(json!({"final": "0"})).out, "Cpus_allowed_list:\t0\n");
    if allowed("self") == "0-1" {
        assert_eq!(exec(json!({"initial": "0", "final": "1"})).out, "Cpus_allowed_list:\t1\n");
    }
    let refused = exec(json!({"final": "1000-1001"}));
    assert!(refused.code != 0 && refused.err.contains("execCPUAffinity.final"), "{refused:?}");
}

#[test]
fn memory_comes_from_the_nodes_of_the_policy() {
    let mut bundle = Bundle::of(&["cat", "/proc/self/numa_maps"]);
    for (policy, shown) in [
        (json!({"mode": "MPOL_BIND", "nodes": "0"}), "bind:0"),
        (json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}), "bind=static:0"),
        (json!({"mode": "MPOL_INTERLEAVE", "nodes": "0"}), "interleave:0"),
        (json!({"mode": "MPOL_PREFERRED", "nodes": "0"}), "prefer:0"),
        (json!({"mode": "MPOL_LOCAL"}), "local"),
        (json!({"mode": "MPOL_DEFAULT"}), "default"),
    ] {
        bundle.config["linux"]["memoryPolicy"] = policy.clone();
        let maps = bundle.ok(&["run", "box"]);
        let found = maps.lines().next().unwrap().split(' ').nth(1).unwrap();
        assert_eq!(found, shown, "{policy}: {maps}");
    }
    for (policy, reason) in [
        (json!({"mode": "MPOL_BIND"}), "linux.memoryPolicy"),
        (json!({"mode": "MPOL_BIND", "nodes": "3-1"}), "linux.memoryPolicy.nodes"),
        (json!({"mode": "MPOL_SCATTER"}), "MPOL_SCATTER"),
    ] {
        bundle.config["linux"]["memoryPolicy"] = policy.clone();
        assert!(bundle.error(&["run", "box"]).contains(reason), "{policy}");
    }
}
