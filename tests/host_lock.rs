//! `evenkeel.lock` and tags that are followed, on a real kernel against Debian's `docker-registry`. What is looked at is
//! what containers have in their files.

#[path = "support/debian_registry.rs"]
mod debian_registry;
mod support;

use std::fs;
use std::process::{Child, Stdio};

use debian_registry::DebianRegistry;
use evenkeel::model::follow::Followed;
use support::eventually;
use support::shell::Shell;

/// A shell beside a registry.
struct Site<'a> {
    shell: &'a Shell,
    registry: DebianRegistry,
}

impl Site<'_> {
    fn with(test: impl FnOnce(&mut Site<'_>) + Send) {
        Shell::with(|shell| test(&mut Site { shell, registry: DebianRegistry::open() }));
    }

    fn name(&self, of: &str) -> String {
        format!("{}/{of}", self.registry.address)
    }

    /// The tag stands for an image in which `/mark` says this; its digest.
    fn publish(&self, of: &str, mark: &str) -> String {
        let (shell, name) = (self.shell, self.name(of));
        fs::write(shell.path("rootfs/mark"), mark).unwrap();
        support::run(&[
            "tar",
            "-C",
            shell.path("rootfs").to_str().unwrap(),
            "-cf",
            shell.path("fs.tar").to_str().unwrap(),
            ".",
        ]);
        // By a name of its own: the one that is declared is not to move on this host.
        shell.ok(&["image", "import", "fs.tar", "made:here"]);
        let pushed = shell.json(&["image", "push", "made:here", &name]);
        shell.ok(&["image", "rm", "made:here"]);
        pushed["digest"].as_str().expect("a push says the digest").to_owned()
    }

    fn manifest(&self, image: &str) {
        let name = self.name("shop/web:1");
        self.shell.write(
            "evenkeel.toml",
            &format!(
                "project = \"shop\"\n[images.web]\nreference = \"{name}\"\n{image}\n[containers.web]\nimage = \"web\"\n\
                 command = [\"sh\", \"-c\", \"test ! -e /bad && exec sleep 1000\"]\nnetwork_mode = \"none\"\nrestart = \"always\"\n\
                 healthcheck = {{ command = [\"test\", \"!\", \"-e\", \"/bad\"], interval = \"200ms\", retries = 2 }}\n"
            ),
        );
    }

    /// Whether an image is on this host by what it was pulled by.
    fn has(&self, repository: &str, digest: &str) -> bool {
        self.shell.run(&["image", "inspect", &format!("{}@{digest}", self.name(repository))]).code == 0
    }

    fn lock(&self) -> String {
        fs::read_to_string(self.shell.path("evenkeel.lock")).unwrap()
    }

    fn mark(&self, container: &str) -> String {
        self.shell.run(&["exec", container, "cat", "/mark"]).stdout
    }

    /// What the service keeps of the only tag that it follows.
    fn followed(&self) -> Option<Followed> {
        let text = fs::read(self.shell.path("root/followed/shop.json")).ok()?;
        let record: serde_json::Value = serde_json::from_slice(&text).unwrap();
        record["tags"].as_object()?.values().next().map(|tag| serde_json::from_value(tag.clone()).unwrap())
    }
}

/// A layer is damaged here, and the registry has cleaned up what has no tag any more.
#[test]
fn what_its_registry_lost_is_fetched_by_its_tag() {
    Site::with(|site| {
        let shell = site.shell;
        let old = site.publish("shop/web:1", "one");
        site.manifest("");
        shell.ok(&["apply"]);
        assert_eq!(site.mark("web"), "one");
        let mut layers = shell.entries("root/layers");
        layers.retain(|name| !name.starts_with('.'));
        shell.ok(&["stop", "web"]);
        site.publish("shop/web:1", "two");
        let [layer] = &layers[..] else { panic!("{layers:?}") };
        let layer = shell.path("root/layers").join(layer);
        fs::remove_file(layer.join("layer.erofs")).or_else(|_| fs::remove_dir_all(layer)).unwrap();

        let plan = shell.ok(&["plan"]).stdout;
        assert!(plan.contains("damaged or gone"), "as long as it can be had it stays what it is: {plan}");
        assert!(!plan.contains("-/+"), "{plan}");

        site.registry.forget("shop/web", &old);
        let plan = shell.ok(&["plan"]).stdout;
        assert!(plan.contains("is damaged, and its registry does not have it any more"), "{plan}");
        shell.ok(&["apply"]);
        assert_eq!(site.mark("web"), "two");
        assert!(shell.plan_is_empty());
    });
}

/// In the directory of another user, who may put there what he likes.
#[test]
fn a_lock_file_that_is_a_link_of_another_user_leads_root_nowhere() {
    Shell::with(|shell| {
        shell.manifest("[containers.web]\nimage = \"box\"\ncommand = [\"true\"]\n");
        let stale = format!("version = 1\n[images]\n\"localhost/gone:1\" = \"sha256:{}\"\n", "0".repeat(64));
        shell.write("other", &stale);
        let link = shell.path("evenkeel.lock");
        std::os::unix::fs::symlink(shell.path("other"), &link).unwrap();
        std::os::unix::fs::lchown(&link, Some(65534), Some(65534)).unwrap();
        let refused = shell.run(&["lock"]);
        assert!(refused.code != 0 && refused.stderr.contains("link of user 65534"), "{refused:?}");
        assert_eq!(fs::read_to_string(shell.path("other")).unwrap(), stale);
        // Root's own is meant.
        std::os::unix::fs::lchown(&link, Some(0), Some(0)).unwrap();
        shell.ok(&["lock"]);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(!fs::read_to_string(shell.path("other")).unwrap().contains("gone"));
    });
}

#[test]
fn what_is_locked_runs_until_the_lock_is_updated() {
    Site::with(|site| {
        let one = site.publish("shop/web:1", "one");
        site.manifest("");
        site.shell.ok(&["lock"]);
        let line = format!("\"{}\" = \"{one}\"", site.name("shop/web:1"));
        assert!(site.lock().lines().any(|have| have == line), "{}", site.lock());
        let written = fs::metadata(site.shell.path("evenkeel.lock")).unwrap().modified().unwrap();

        let two = site.publish("shop/web:1", "two");
        site.shell.ok(&["lock"]);
        assert_eq!(fs::metadata(site.shell.path("evenkeel.lock")).unwrap().modified().unwrap(), written);
        site.shell.ok(&["apply"]);
        assert_eq!(site.mark("web"), "one");
        let plan = site.shell.ok(&["plan", "--detailed-exitcode"]).stdout;
        assert!(plan.contains("its tag has moved") && plan.contains(&two), "{plan}");

        site.shell.ok(&["lock", "--update", "web"]);
        assert!(site.lock().contains(&two));
        site.shell.ok(&["apply"]);
        assert_eq!(site.mark("web"), "two");
        assert!(site.shell.plan_is_empty());
        // What is pinned is none of the tag's names, and beside one of the tag it is no row of its own.
        let tags = || site.shell.ok(&["image", "ls", "--format", "{{.Tag}} {{.Digest}}"]).stdout;
        let sorted = |text: String| text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(sorted(tags()), [format!("<none> {one}"), format!("<none> {two}")].into());
        site.shell.ok(&["image", "pull", &site.name("shop/web:1")]);
        assert_eq!(sorted(tags()), [format!("<none> {one}"), format!("1 {two}")].into());
        let all = site.shell.ok(&["image", "ls", "--json"]).stdout;
        assert!(all.contains(&format!("{}@{two}", site.name("shop/web:1"))), "every name there is: {all}");
        let name = site.name("shop/web");
        let names = site.shell.ok(&["image", "inspect", "-f", "{{.RepoTags}} {{.RepoDigests}}", &format!("{name}:1")]);
        assert_eq!(names.stdout, format!("[{name}:1] [{name}@{two}]\n"));
        site.shell.ok(&["down"]);
    });
}

#[test]
fn a_lock_that_lacks_an_image_stops_a_plan_and_a_check() {
    Site::with(|site| {
        site.publish("shop/web:1", "one");
        site.manifest("");
        assert_eq!(site.shell.run(&["lock", "--check"]).code, 2, "there is none");
        site.shell.ok(&["lock"]);
        site.shell.ok(&["lock", "--check"]);
        let text = fs::read_to_string(site.shell.path("evenkeel.toml")).unwrap();
        site.shell.write("evenkeel.toml", &text.replace("shop/web:1", "shop/web:2"));
        assert_eq!(site.shell.run(&["lock", "--check"]).code, 2);
        let refused = site.shell.run(&["apply"]);
        assert_eq!(refused.code, 1);
        assert!(refused.stderr.contains("shop/web:2 (container web)"), "{}", refused.stderr);
        assert!(refused.stderr.contains("hint: `evenkeel lock`"), "{}", refused.stderr);
    });
}

#[test]
fn a_registry_that_is_gone_keeps_nobody_from_what_is_locked_and_here() {
    Site::with(|site| {
        site.publish("shop/web:1", "one");
        site.manifest("");
        // It is here by its tag, and by no other name.
        site.shell.ok(&["image", "pull", &site.name("shop/web:1")]);
        site.shell.ok(&["lock"]);
        site.registry.end();
        site.shell.ok(&["apply"]);
        assert_eq!(site.mark("web"), "one");
        let plan = site.shell.ok(&["plan", "--detailed-exitcode"]).stdout;
        assert!(plan.contains("not known whether its tag moved") && plan.contains("Nothing to do"), "{plan}");
        site.shell.ok(&["down"]);
    });
}

#[test]
fn a_build_begins_with_the_base_that_is_locked() {
    Site::with(|site| {
        let base = site.publish("shop/base:1", "one");
        fs::create_dir(site.shell.path("context")).unwrap();
        let from = format!("ARG V=1\nFROM {}:$V\nRUN cat /mark > /copied\n", site.name("shop/base"));
        site.shell.write("context/Dockerfile", &from);
        site.shell.write(
            "evenkeel.toml",
            "project = \"shop\"\n[images.app]\nbuild = { context = \"context\", pull = true }\n[containers.app]\n\
             image = \"app\"\ncommand = [\"sleep\", \"1000\"]\nnetwork_mode = \"none\"\n",
        );
        site.shell.ok(&["lock"]);
        site.publish("shop/base:1", "two");
        site.shell.ok(&["apply"]);
        let copied = || site.shell.ok(&["exec", "app", "cat", "/copied"]).stdout;
        assert_eq!(copied(), "one");
        assert!(site.shell.plan_is_empty());
        site.shell.ok(&["image", "prune", "-a"]);
        assert!(site.has("shop/base", &base), "what is locked stays");
        site.shell.ok(&["lock", "--update", "app"]);
        site.shell.ok(&["apply"]);
        assert_eq!(copied(), "two");
        assert!(site.shell.plan_is_empty());
        site.shell.ok(&["down"]);
        fs::remove_file(site.shell.path("evenkeel.toml")).unwrap();
        site.shell.ok(&["image", "prune", "-a"]);
        assert!(!site.has("shop/base", &base), "what nobody locks does not");
    });
}

/// `watch` that asks its registry all the time.
struct Watch<'a> {
    site: &'a Site<'a>,
    service: Child,
}

impl<'a> Watch<'a> {
    fn begin(site: &'a Site<'a>) -> Watch<'a> {
        let log = fs::File::options().create(true).append(true).open(site.shell.path("log")).unwrap();
        let mut command = site.shell.command(&["watch", "--follow-interval", "100ms"]);
        let service = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Watch { site, service }
    }

    fn kill(&mut self) {
        self.service.kill().unwrap();
        self.service.wait().unwrap();
    }

    fn log(&self) -> String {
        fs::read_to_string(self.site.shell.path("log")).unwrap()
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.service.kill();
        let _ = self.service.wait();
        self.site.shell.run(&["down"]);
    }
}

#[test]
fn a_followed_tag_is_taken_when_it_is_old_enough_also_by_a_service_that_was_killed() {
    Site::with(|site| {
        let one = site.publish("shop/web:1", "one");
        site.manifest("follow = \"tag\"\nmin_age = \"3s\"");
        site.shell.ok(&["lock"]);
        let lock = site.lock();
        let mut watch = Watch::begin(site);
        eventually("it runs as it is locked", || site.mark("web") == "one");
        let two = site.publish("shop/web:1", "two");
        eventually("the tag is seen", || site.followed().is_some_and(|tag| tag.candidate.is_some()));
        let seen = site.followed().unwrap().candidate.unwrap();
        watch.kill();
        assert_eq!(site.mark("web"), "one", "it is too young");
        drop(watch);

        let watch = Watch::begin(site);
        eventually("the new image runs", || site.mark("web") == "two");
        let followed = site.followed().unwrap();
        assert_eq!(followed.taken.unwrap().to_string(), two);
        assert!(seen.since.elapsed().unwrap().as_secs() >= 3, "{}", watch.log());
        assert_eq!(site.lock(), lock, "the lock file is nobody's but `evenkeel lock`");
        site.shell.ok(&["image", "prune", "-a"]);
        assert!(site.has("shop/web", &one) && site.has("shop/web", &two), "the way back stays");
        // Who applies by hand does not take back what was followed, and who locks anew does.
        site.shell.ok(&["apply"]);
        assert_eq!(site.mark("web"), "two");
    });
}

#[test]
fn a_followed_image_that_does_not_stay_up_is_gone_back_from_and_left_alone() {
    Site::with(|site| {
        site.publish("shop/web:1", "one");
        site.manifest("follow = \"tag\"");
        site.shell.ok(&["lock"]);
        let watch = Watch::begin(site);
        eventually("it runs as it is locked", || site.mark("web") == "one");
        fs::write(site.shell.path("rootfs/bad"), "").unwrap();
        let bad = site.publish("shop/web:1", "bad");
        fs::remove_file(site.shell.path("rootfs/bad")).unwrap();
        eventually("the update is refused", || watch.log().contains("refuse the update"));
        eventually("the old image runs again", || site.mark("web") == "one");
        let tries = || watch.log().matches("create container web").count();
        let tried = tries();
        // Many looks later.
        let asked = std::time::Instant::now();
        eventually("time passes", || asked.elapsed().as_secs() >= 3);
        assert_eq!((tries(), site.mark("web").as_str()), (tried, "one"), "{}", watch.log());
        assert_eq!(site.followed().unwrap().taken.unwrap().to_string(), bad);
        site.publish("shop/web:1", "good");
        eventually("the next image runs", || site.mark("web") == "good");
    });
}

#[test]
fn what_is_too_young_is_not_taken_and_what_runs_first_is() {
    Site::with(|site| {
        site.publish("shop/web:1", "one");
        site.manifest("follow = \"tag\"\nwindow = \"Mon 00:00-00:01\"\nmin_age = \"1000w\"");
        let watch = Watch::begin(site);
        eventually("what is here first is taken at once", || site.mark("web") == "one");
        let two = site.publish("shop/web:1", "two");
        eventually("the tag is seen", || watch.log().contains(&two));
        let asked = std::time::Instant::now();
        eventually("time passes", || asked.elapsed().as_secs() >= 2);
        assert_eq!(site.mark("web"), "one", "{}", watch.log());
    });
}
