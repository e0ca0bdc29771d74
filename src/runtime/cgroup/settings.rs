//! What of `linux.resources` is a line in a file that a host may or may not have: disks, huge pages, marks on packets,
//! RDMA. Which files and which lines is decided here; versions 1 and 2 write them.

use std::path::Path;

use oci_spec::runtime::{
    LinuxBlockIo, LinuxHugepageLimit, LinuxNetwork, LinuxRdma, LinuxResources, LinuxThrottleDevice,
};

use super::{Controller, Layout, files};
use crate::runtime::error::{RuntimeError, invalid, unsupported};

/// One line to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    pub controller: Controller,
    /// Where it stands in the configuration.
    pub field: &'static str,
    /// File and line; the first file that exists is taken.
    choices: Vec<(String, String)>,
    /// Whether it limits nothing, so that a host that cannot is fine.
    pub lifts: bool,
}

impl Setting {
    fn new(controller: Controller, field: &'static str, choices: Vec<(String, String)>) -> Setting {
        Setting { controller, field, choices, lifts: false }
    }

    /// Writes it in the directory of its controller.
    pub(super) fn write(&self, directory: &Path) -> Result<(), RuntimeError> {
        match self.choices.iter().find(|(file, _)| directory.join(file).exists()) {
            Some((file, line)) => files::write(directory, file, line),
            None if self.lifts => Ok(()),
            None => {
                let names: Vec<String> = self.choices.iter().map(|(file, _)| format!("`{file}`")).collect();
                Err(unsupported(self.field, format!("this host's kernel has no {}", names.join(" or "))))
            }
        }
    }
}

/// Everything that `resources` asks for of this kind.
pub(super) fn of(resources: &LinuxResources, layout: Layout) -> Result<Vec<Setting>, RuntimeError> {
    let mut settings = Vec::new();
    if let Some(limits) = resources.block_io() {
        settings.extend(match layout {
            Layout::V1 => disks_v1(limits),
            Layout::V2 => disks_v2(limits)?,
        });
    }
    settings.extend(resources.hugepage_limits().iter().flatten().map(|limit| huge_pages(limit, layout)));
    if let Some(network) = resources.network() {
        settings.extend(marks(network, layout)?);
    }
    let mut cards: Vec<_> = resources.rdma().iter().flatten().collect();
    cards.sort_by_key(|(name, _)| *name);
    for (name, limits) in cards {
        settings.push(rdma(name, limits)?);
    }
    Ok(settings)
}

/// What is limited of each disk: its field, its file of version 1, its key in `io.max`, and the disks.
type Throttle<'a> = (&'static str, &'static str, &'static str, &'a Option<Vec<LinuxThrottleDevice>>);

fn throttles(limits: &LinuxBlockIo) -> [Throttle<'_>; 4] {
    [
        (
            "linux.resources.blockIO.throttleReadBpsDevice",
            "blkio.throttle.read_bps_device",
            "rbps",
            limits.throttle_read_bps_device(),
        ),
        (
            "linux.resources.blockIO.throttleWriteBpsDevice",
            "blkio.throttle.write_bps_device",
            "wbps",
            limits.throttle_write_bps_device(),
        ),
        (
            "linux.resources.blockIO.throttleReadIOPSDevice",
            "blkio.throttle.read_iops_device",
            "riops",
            limits.throttle_read_iops_device(),
        ),
        (
            "linux.resources.blockIO.throttleWriteIOPSDevice",
            "blkio.throttle.write_iops_device",
            "wiops",
            limits.throttle_write_iops_device(),
        ),
    ]
}

const WEIGHT: &str = "linux.resources.blockIO.weight";
const LEAF_WEIGHT: &str = "linux.resources.blockIO.leafWeight";
const WEIGHT_DEVICE: &str = "linux.resources.blockIO.weightDevice";

/// Docker writes a weight of 0 for "not set".
fn given(weight: Option<u16>) -> Option<u16> {
    weight.filter(|weight| *weight != 0)
}

/// Linux, admin-guide/cgroup-v1/blkio-controller; the names with `bfq` are those of that scheduler, the others those of
/// CFQ, which kernels had up to 5.0.
fn disks_v1(limits: &LinuxBlockIo) -> Vec<Setting> {
    let io = |field, choices: &[&str], line: String| {
        let choices = choices.iter().map(|file| ((*file).to_owned(), line.clone())).collect();
        Setting::new(Controller::Io, field, choices)
    };
    let mut settings = Vec::new();
    if let Some(weight) = given(limits.weight()) {
        settings.push(io(WEIGHT, &["blkio.weight", "blkio.bfq.weight"], weight.to_string()));
    }
    if let Some(weight) = given(limits.leaf_weight()) {
        settings.push(io(LEAF_WEIGHT, &["blkio.leaf_weight"], weight.to_string()));
    }
    for device in limits.weight_device().iter().flatten() {
        let line = |weight: u16| format!("{}:{} {weight}", device.major(), device.minor());
        if let Some(weight) = device.weight() {
            settings.push(io(WEIGHT_DEVICE, &["blkio.weight_device", "blkio.bfq.weight_device"], line(weight)));
        }
        if let Some(weight) = device.leaf_weight() {
            settings.push(io(WEIGHT_DEVICE, &["blkio.leaf_weight_device"], line(weight)));
        }
    }
    for (field, file, _, devices) in throttles(limits) {
        settings.extend(devices.iter().flatten().map(|device| {
            let line = format!("{}:{} {}", device.major(), device.minor(), device.rate());
            Setting { lifts: device.rate() == 0, ..io(field, &[file], line) }
        }));
    }
    settings
}

/// Linux, admin-guide/cgroup-v2, "IO Interface Files".
fn disks_v2(limits: &LinuxBlockIo) -> Result<Vec<Setting>, RuntimeError> {
    let weights = |field, device: &str, weight: u16| {
        let bfq = ("io.bfq.weight".to_owned(), format!("{device} {weight}"));
        let io = ("io.weight".to_owned(), format!("{device} {}", io_weight(weight)));
        Setting::new(Controller::Io, field, vec![bfq, io])
    };
    let no_leaves = |field: &str| invalid(field, "cgroups of version 2 have no weight of leaves");
    let mut settings = Vec::new();
    if let Some(weight) = given(limits.weight()) {
        settings.push(weights(WEIGHT, "default", weight));
    }
    if given(limits.leaf_weight()).is_some() {
        return Err(no_leaves(LEAF_WEIGHT));
    }
    for device in limits.weight_device().iter().flatten() {
        if device.leaf_weight().is_some() {
            return Err(no_leaves(WEIGHT_DEVICE));
        }
        if let Some(weight) = device.weight() {
            settings.push(weights(WEIGHT_DEVICE, &format!("{}:{}", device.major(), device.minor()), weight));
        }
    }
    for (field, _, key, devices) in throttles(limits) {
        settings.extend(devices.iter().flatten().map(|device| {
            let rate = if device.rate() == 0 { "max".to_owned() } else { device.rate().to_string() };
            let line = format!("{}:{} {key}={rate}", device.major(), device.minor());
            let setting = Setting::new(Controller::Io, field, vec![("io.max".to_owned(), line)]);
            Setting { lifts: device.rate() == 0, ..setting }
        }));
    }
    Ok(settings)
}

/// A weight of version 1 (10 to 1000) on the straight line to those of version 2 (1 to 10000), as runc draws it.
fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight.clamp(10, 1000)) - 10) * 9999 / 990
}

/// Reservations are limited where the kernel counts them, else pages in use (config-linux.md, "Huge page limits").
fn huge_pages(limit: &LinuxHugepageLimit, layout: Layout) -> Setting {
    let size = limit.page_size();
    let (reserved, used) = match layout {
        Layout::V1 => ("rsvd.limit_in_bytes", "limit_in_bytes"),
        Layout::V2 => ("rsvd.max", "max"),
    };
    let line = limit.limit().to_string();
    let choices = [reserved, used].map(|file| (format!("hugetlb.{size}.{file}"), line.clone())).to_vec();
    Setting::new(Controller::Hugetlb, "linux.resources.hugepageLimits", choices)
}

fn marks(network: &LinuxNetwork, layout: Layout) -> Result<Vec<Setting>, RuntimeError> {
    let class = network.class_id().map(|class| {
        let field = "linux.resources.network.classID";
        let setting = Setting::new(Controller::NetCls, field, vec![("net_cls.classid".to_owned(), class.to_string())]);
        Setting { lifts: class == 0, ..setting }
    });
    let priorities = network.priorities().iter().flatten().map(|priority| {
        let line = format!("{} {}", priority.name(), priority.priority());
        let field = "linux.resources.network.priorities";
        Setting::new(Controller::NetPrio, field, vec![("net_prio.ifpriomap".to_owned(), line)])
    });
    let settings: Vec<Setting> = class.into_iter().chain(priorities).collect();
    match settings.iter().find(|setting| layout == Layout::V2 && !setting.lifts) {
        Some(setting) => Err(invalid(setting.field, "cgroups of version 2 have no such setting")),
        None => Ok(settings),
    }
}

fn rdma(name: &str, limits: &LinuxRdma) -> Result<Setting, RuntimeError> {
    let field = "linux.resources.rdma";
    let parts = [("hca_handle", limits.hca_handles()), ("hca_object", limits.hca_objects())];
    let parts: Vec<String> =
        parts.into_iter().filter_map(|(key, value)| value.map(|value| format!("{key}={value}"))).collect();
    match parts.is_empty() {
        true => Err(invalid(field, format!("`{name}` has neither `hcaHandles` nor `hcaObjects`"))),
        false => {
            let line = format!("{name} {}", parts.join(" "));
            Ok(Setting::new(Controller::Rdma, field, vec![("rdma.max".to_owned(), line)]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines for `text`, each with the file that is tried first.
    fn lines(text: &str, layout: Layout) -> Vec<String> {
        let resources: LinuxResources = serde_json::from_str(text).unwrap();
        let settings = of(&resources, layout).unwrap();
        settings.iter().map(|setting| format!("{} < {}", setting.choices[0].0, setting.choices[0].1)).collect()
    }

    fn refused(text: &str, layout: Layout) -> String {
        let resources: LinuxResources = serde_json::from_str(text).unwrap();
        of(&resources, layout).unwrap_err().to_string()
    }

    const DISKS: &str = r#"{"blockIO": {"weight": 500, "weightDevice": [{"major": 8, "minor": 0, "weight": 10}],
        "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}],
        "throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 0}],
        "throttleReadIOPSDevice": [{"major": 8, "minor": 16, "rate": 7}],
        "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 8}]}}"#;

    #[test]
    fn disks_are_limited_in_both_versions() {
        let expected = [
            "blkio.weight < 500",
            "blkio.weight_device < 8:0 10",
            "blkio.throttle.read_bps_device < 8:0 600",
            "blkio.throttle.write_bps_device < 8:0 0",
            "blkio.throttle.read_iops_device < 8:16 7",
            "blkio.throttle.write_iops_device < 8:16 8",
        ];
        assert_eq!(lines(DISKS, Layout::V1), expected);
        let expected = [
            "io.bfq.weight < default 500",
            "io.bfq.weight < 8:0 10",
            "io.max < 8:0 rbps=600",
            "io.max < 8:0 wbps=max",
            "io.max < 8:16 riops=7",
            "io.max < 8:16 wiops=8",
        ];
        assert_eq!(lines(DISKS, Layout::V2), expected);
        assert_eq!([io_weight(10), io_weight(500), io_weight(1000)], [1, 4950, 10_000]);
        assert_eq!(lines(r#"{"blockIO": {"weight": 0, "weightDevice": []}}"#, Layout::V1), [""; 0]);
    }

    #[test]
    fn leaves_have_weights_in_version_1_only() {
        let text = r#"{"blockIO": {"leafWeight": 20, "weightDevice": [{"major": 8, "minor": 0, "leafWeight": 30}]}}"#;
        assert_eq!(lines(text, Layout::V1), ["blkio.leaf_weight < 20", "blkio.leaf_weight_device < 8:0 30"]);
        assert!(refused(text, Layout::V2).contains("leafWeight"));
    }

    #[test]
    fn huge_pages_network_and_rdma_have_their_files() {
        let text = r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}],
            "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}, "a": {"hcaObjects": 1}}}"#;
        let rdma = ["rdma.max < a hca_object=1", "rdma.max < mlx5_1 hca_handle=3 hca_object=10000"];
        assert_eq!(lines(text, Layout::V1), [&["hugetlb.2MB.rsvd.limit_in_bytes < 4194304"], &rdma[..]].concat());
        assert_eq!(lines(text, Layout::V2), [&["hugetlb.2MB.rsvd.max < 4194304"], &rdma[..]].concat());
        assert!(refused(r#"{"rdma": {"a": {}}}"#, Layout::V2).contains("hcaHandles"));
        let text = r#"{"network": {"classID": 1048577, "priorities": [{"name": "eth0", "priority": 5}]}}"#;
        assert_eq!(lines(text, Layout::V1), ["net_cls.classid < 1048577", "net_prio.ifpriomap < eth0 5"]);
        assert!(refused(text, Layout::V2).contains("network.classID"));
    }

    #[test]
    fn a_file_that_the_kernel_does_not_have_is_named_with_its_field() {
        let directory = tempfile::tempdir().unwrap();
        let resources: LinuxResources = serde_json::from_str(r#"{"blockIO": {"weight": 500}}"#).unwrap();
        let settings = of(&resources, Layout::V1).unwrap();
        let error = settings[0].write(directory.path()).unwrap_err().to_string();
        assert!(error.contains("blockIO.weight") && error.contains("`blkio.bfq.weight`"), "{error}");
        std::fs::write(directory.path().join("blkio.bfq.weight"), "").unwrap();
        settings[0].write(directory.path()).unwrap();
        assert_eq!(std::fs::read_to_string(directory.path().join("blkio.bfq.weight")).unwrap(), "500");
    }
}
