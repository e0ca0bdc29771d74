//! Dockerfiles that are read, and those that are not.

use super::expand::{expand, expand_document};
use super::pattern::Ignore;
use super::*;

fn steps(text: &str) -> Vec<Step> {
    let file = parse(text).unwrap_or_else(|errors| panic!("{errors:?}"));
    file.stages.into_iter().flat_map(|stage| stage.instructions).map(|instruction| instruction.step).collect()
}

fn step(text: &str) -> Step {
    steps(&format!("FROM scratch\n{text}\n")).pop().unwrap()
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

/// Each error as line:column, what is under the caret, and the message.
fn errors(text: &str) -> Vec<String> {
    let Err(errors) = parse(text) else { return Vec::new() };
    let shown = |error: &SyntaxError| {
        let before = &text[..error.place.start];
        let line = before.matches('\n').count() + 1;
        let column = before.len() - before.rfind('\n').map_or(0, |at| at + 1) + 1;
        format!("{line}:{column} {:?} {}", &text[error.place.clone()], error.message)
    };
    errors.iter().map(shown).collect()
}

#[test]
fn stages_have_bases_and_names() {
    let file =
        parse("# syntax=docker/dockerfile:1\nARG V=1\nFROM a:$V AS Build\nRUN x\nFROM --platform=linux/amd64 build\n");
    let file = file.unwrap();
    assert_eq!(file.arguments, [Argument { name: "V".into(), default: Some("1".into()) }]);
    assert_eq!((file.stages[0].base.as_str(), file.stages[0].name.as_deref()), ("a:$V", Some("build")));
    assert_eq!((file.stages[1].base.as_str(), file.stages[1].platform.as_deref()), ("build", Some("linux/amd64")));
    assert_eq!((file.stage("BUILD"), file.stage("1"), file.stage("2")), (Some(0), Some(1), None));
}

#[test]
fn lines_are_joined_and_comments_between_them_are_dropped() {
    let run = |text: &str| match step(text) {
        Step::Run(Run { command: CommandLine::Shell(line), .. }) => line,
        other => panic!("{other:?}"),
    };
    assert_eq!(run("RUN a \\\n  # why\n\n  && b \\  \n && c"), "a   && b  && c");
    assert_eq!(run("run echo \\\\x"), "echo \\\\x");
    let file = parse("# escape=`\nFROM scratch\nRUN a `\n b\n").unwrap();
    assert_eq!(file.stages[0].instructions[0].text, "RUN a  b");
    assert_eq!(file.stages[0].instructions[0].line, 3);
}

#[test]
fn here_documents_are_scripts_and_files() {
    let Step::Run(run) = step("RUN <<EOF\necho $x\n  two\nEOF\n") else { panic!() };
    assert_eq!(run.documents, [Heredoc { name: "EOF".into(), body: "echo $x\n  two\n".into(), expands: true }]);
    let Step::Copy(copy) = step("COPY <<-\"a.txt\" <<b /d/\n\tone\n\ta.txt\ntwo\nb\n") else { panic!() };
    let document = |name: &str, body: &str, expands| {
        CopySource::Document(Heredoc { name: name.into(), body: body.into(), expands })
    };
    assert_eq!(copy.sources, [document("a.txt", "one\n", false), document("b", "two\n", true)]);
    assert_eq!(steps("FROM scratch\nRUN echo $((1 << 3)) <<<x\nRUN b\n").len(), 2, "no here-document");
}

#[test]
fn commands_have_two_forms() {
    let list = |words: &[&str]| CommandLine::Exec(texts(words));
    assert_eq!(step("CMD [\"a\", \"b c\"]"), Step::Cmd(list(&["a", "b c"])));
    assert_eq!(step("CMD ['a']"), Step::Cmd(CommandLine::Shell("['a']".into())));
    assert_eq!(step("ENTRYPOINT exec a \"b\""), Step::Entrypoint(CommandLine::Shell("exec a \"b\"".into())));
    assert_eq!(step("SHELL [\"/bin/bash\",\"-c\"]"), Step::Shell(texts(&["/bin/bash", "-c"])));
    assert_eq!(step("VOLUME [\"/a\"]"), Step::Volume(texts(&["/a"])));
}

#[test]
fn pairs_keep_their_quotes_for_later() {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        step("ENV a=1 b=\"x y\" c=x\\ y"),
        Step::Env(vec![pair("a", "1"), pair("b", "\"x y\""), pair("c", "x\\ y")])
    );
    assert_eq!(step("ENV a  x y=z"), Step::Env(vec![pair("a", "x y=z")]));
    assert_eq!(step("LABEL a.b=\"c\""), Step::Label(vec![pair("a.b", "\"c\"")]));
}

#[test]
fn flags_of_run_and_copy_are_read() {
    let Step::Run(run) = step("RUN --mount=type=cache,target=/c,sharing=locked,id=x --network=none make") else {
        panic!()
    };
    assert_eq!(run.network, Some(RunNetwork::None));
    let cache =
        RunMountKind::Cache { id: "x".into(), read_only: false, sharing: Sharing::Locked, mode: 0o755, uid: 0, gid: 0 };
    assert_eq!(run.mounts, [RunMount { target: "/c".into(), kind: cache }]);
    let Step::Copy(copy) = step("COPY --chown=1:2 --chmod=0644 --link --exclude=*.md --exclude=b a* [x] /d/") else {
        panic!()
    };
    assert_eq!((copy.owner.as_deref(), copy.mode.as_deref()), (Some("1:2"), Some("0644")));
    assert_eq!((copy.exclude, copy.target.as_str()), (texts(&["*.md", "b"]), "/d/"));
    assert_eq!(copy.sources, ["a*", "[x]"].map(|path| CopySource::Path(path.into())));
}

#[test]
fn secrets_are_files_or_variables() {
    let secrets = |flags: &str| match step(&format!("RUN {flags} x")) {
        Step::Run(run) => run.secrets,
        other => panic!("{other:?}"),
    };
    let file = |id: &str, target: &str| RunSecret {
        id: id.into(),
        target: Some(target.into()),
        variable: None,
        required: false,
        mode: 0o400,
        uid: 0,
        gid: 0,
    };
    assert_eq!(secrets("--mount=type=secret,id=a/b"), [file("a/b", "/run/secrets/b")]);
    assert_eq!(secrets("--mount=type=secret,target=/x/y"), [file("y", "/x/y")]);
    let look = RunSecret { required: true, mode: 0o440, uid: 1, gid: 2, ..file("a", "/x") };
    assert_eq!(secrets("--mount=type=secret,id=a,dst=/x,required,mode=0440,uid=1,gid=2"), [look]);
    let variable = RunSecret { target: None, variable: Some("A".into()), ..file("a", "") };
    assert_eq!(secrets("--mount=type=secret,id=a,env=A,required=false"), [variable]);
    for wrong in ["type=secret", "type=secret,id=a,from=b", "type=secret,id=a,required=x", "type=secret,id=a,mode=9"] {
        assert_eq!(errors(&format!("FROM a\nRUN --mount={wrong} x\n")).len(), 1, "{wrong}");
    }
}

#[test]
fn health_checks_have_times() {
    let Step::Healthcheck(check) = step("HEALTHCHECK --interval=1m30s --timeout=1.5s --retries=2 CMD a b") else {
        panic!()
    };
    assert_eq!((check.interval, check.timeout, check.retries), (90_000_000_000, 1_500_000_000, 2));
    assert_eq!(check.command, Some(CommandLine::Shell("a b".into())));
    let Step::Healthcheck(none) = step("HEALTHCHECK NONE") else { panic!() };
    assert_eq!(none.command, None);
}

#[test]
fn secrets_are_asked_for_by_commands_and_by_triggers() {
    let read = |text: &str| parse(text).unwrap();
    let file =
        read("FROM scratch AS a\nONBUILD RUN --mount=type=secret,id=x y\nFROM A\nRUN --mount=type=secret,id=z y\n");
    assert_eq!(file.secret_ids().into_iter().collect::<Vec<_>>(), ["x", "z"]);
    assert!(!file.has_bases());
    assert!(read("FROM a AS a\n").has_bases(), "a stage is not its own base");
}

#[test]
fn errors_have_places() {
    for (text, expected) in [
        ("FROM a\nRUNN x\n", "2:1 \"RUNN\" `RUNN` is not an instruction"),
        ("RUN x\nFROM a\n", "1:1 \"RUN\" only `ARG` may stand before the first `FROM`"),
        ("FROM a b\n", "1:8 \"b\" only a name may follow the image"),
        ("FROM a AS 1x\n", "1:11 \"1x\" `1x` is not a name of a stage"),
        ("FROM A:b:c\n", "1:6 \"A:b:c\" `A:b:c` is not an image reference"),
        (
            "FROM a\nRUN \\\n  --mount=type=ssh,target=/x \\\n y\n",
            "3:3 \"--mount=type=ssh,target=/x\" mounts of the type `ssh`",
        ),
        ("FROM a\nADD --parents b c\n", "2:5 \"--parents\" `--parents` is not a flag of `ADD`"),
        ("FROM a\nCOPY b\n", "2:1 \"COPY b\" `COPY` needs a source and a target"),
        ("FROM a\nADD https://x.example/y /\n", "2:5 \"https://x.example/y\" what is fetched has no checksum"),
        (
            "FROM a\nADD http://u:p@x/y /\n",
            "2:5 \"http://u:p@x/y\" the URL names a user, and files are fetched without one",
        ),
        ("FROM a\nADD http://x/y@z /\n", "2:5 \"http://x/y@z\" what is fetched has no checksum"),
        ("FROM a\nCOPY --from=2 b c\n", "2:1 \"COPY --from=2 b c\" `2` is not a stage above this one"),
        ("FROM a\nRUN <<EOF\nx\n", "2:5 \"<<EOF\" the here-document `EOF` does not end"),
        ("FROM a\nSTOPSIGNAL SIGNOPE\n", "2:12 \"SIGNOPE\" `SIGNOPE` is not a signal"),
        ("FROM a\nONBUILD FROM b\n", "2:9 \"FROM b\" `FROM` cannot be a trigger"),
        ("FROM a AS x\nFROM b AS X\n", "2:1 \"FROM b AS X\" the stage `x` is defined twice"),
        ("# nothing\n", "1:1 \"#\" there is no `FROM`"),
        ("# escape=x\nFROM a\n", "1:1 \"# escape=x\" `x` cannot be the escape character"),
    ] {
        let found = errors(text);
        assert!(found.len() == 1 && found[0].starts_with(expected), "{text:?}: {found:#?}\nexpected {expected}");
    }
    assert_eq!(errors("FROM a\nNOPE\nRUN\n").len(), 2, "all at once");
}

#[test]
fn places_are_whole_characters_of_the_text() {
    for text in
        ["FROM scratch\nHEALTHCHECK --", "FROM", "FROM scratch\nRUN", "FROM é\nCOPY é", "FROM scratch\nWORKDIR \\"]
    {
        for error in parse(text).err().into_iter().flatten() {
            assert!(text.get(error.place.clone()).is_some(), "{text:?}: {error:?}");
        }
    }
    assert_eq!(errors("FROM scratch\nHEALTHCHECK --"), ["2:15 \"\" it is not a health check"]);
}

#[test]
fn variables_are_replaced_as_the_reference_says() {
    let lookup = |name: &str| match name {
        "a" => Some("value".to_owned()),
        "e" => Some(String::new()),
        "p" => Some("/usr/lib/x.tar.gz".to_owned()),
        _ => None,
    };
    for (text, expected) in [
        ("$a/${a}x$none.", "value/valuex."),
        ("\\$a \\${a} '$a' \"$a\\\"\"", "$a ${a} $a value\""),
        ("${none:-d}${none-d}${e:-d}${e-d}", "ddd"),
        ("${a:+y}${none:+y}${e+y}${e:+y}", "yy"),
        ("${none:-${a}}", "value"),
        ("${p#*/}|${p##*/}|${p%.*}|${p%%.*}", "usr/lib/x.tar.gz|x.tar.gz|/usr/lib/x.tar|/usr/lib/x"),
        ("${p/./-}|${p//./-}|${a/[aeiou]/}", "/usr/lib/x-tar.gz|/usr/lib/x-tar-gz|vlue"),
        ("$", "$"),
        ("a\"b c\"'d'", "ab cd"),
    ] {
        assert_eq!(expand(text, '\\', &lookup).as_deref(), Ok(expected), "{text}");
    }
    for text in ["${a", "${}", "\"a", "'a", "${none:?}", "${a!x}"] {
        assert!(expand(text, '\\', &lookup).is_err(), "{text}");
    }
    assert_eq!(expand("${none:?is needed}", '\\', &lookup).unwrap_err(), "`none` is not set: is needed");
    assert_eq!(expand_document("\"$a\" '\\$a' \\x\n", &lookup).as_deref(), Ok("\"value\" '$a' \\x\n"));
}

#[test]
fn what_is_left_out_follows_from_the_last_pattern_that_matches() {
    for (patterns, left_out, kept) in [
        ("*.md\n!README.md", &["a.md"][..], &["README.md", "docs/a.md"][..]),
        ("**/*.md", &["a.md", "x/y/a.md"], &["a.mdx"]),
        ("/build/\n", &["build", "build/x/y"], &["src/build"]),
        ("docs\n!docs/keep.txt", &["docs", "docs/a"], &["docs/keep.txt"]),
        ("!docs/keep.txt\ndocs", &["docs/keep.txt"], &[]),
        ("a/**/b", &["a/b", "a/x/y/b", "a/x/b/c"], &["a/x", "b"]),
        ("a/**", &["a/x", "a/x/y"], &["a"]),
        ("**\n!keep", &["x", "x/keep"], &["keep", "keep/all"]),
        ("?.o\n[a-c]x\n[^a-c]y\n\\*", &["a.o", "bx", "dy", "*"], &["ab.o", "dx", "ay", "z"]),
        ("# comment\n  #not\n./x/../y/\n\n", &["y", "#not"], &["x", "# comment"]),
        ("/", &[], &["a"]),
    ] {
        let ignore = Ignore::parse(patterns).unwrap();
        for path in left_out {
            assert!(ignore.leaves_out(path), "{patterns:?} keeps {path}");
        }
        for path in kept {
            assert!(!ignore.leaves_out(path), "{patterns:?} leaves out {path}");
        }
    }
    assert!(Ignore::parse("a[b").is_err() && Ignore::parse("a\\").is_err());
}
