//! `evenkeel image` and `evenkeel container` as somebody at a shell has them: names, removal, and what goes in and out,
//! judged by what is on disk and by what skopeo, umoci and Docker make of it.

#[path = "host_images/build.rs"]
mod build;
#[path = "host_images/commit.rs"]
mod commit;
#[path = "host_images/damage.rs"]
mod damage;
#[path = "host_images/dockerfile.rs"]
mod dockerfile;
#[path = "host_images/gc.rs"]
mod gc;
#[path = "support/mod.rs"]
mod hosts;
#[path = "host_images/local.rs"]
mod local;
#[allow(dead_code, reason = "each test binary uses its part of it")]
#[path = "host_image/made.rs"]
mod made;
#[path = "host_images/shell.rs"]
mod shell;
#[allow(dead_code, reason = "each test binary uses its part of it")]
#[path = "host_image/support.rs"]
mod support;
#[path = "host_images/transfer.rs"]
mod transfer;
