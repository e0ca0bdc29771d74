//! The `WWW-Authenticate` header (RFC 9110, 11.6.1): which schemes a registry offers and with what parameters.

/// One scheme, in lower case, with its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    pub scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// All challenges of one header. Commas separate challenges and parameters alike, and stand in quoted values too, as
/// in `scope="repository:a:pull,push"`. What makes no sense is passed over: the registry will say 401 again.
pub fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        if name.is_empty() {
            // A stray character, or the end.
            let Some(stray) = rest.chars().next() else { return challenges };
            rest = &rest[stray.len_utf8()..];
            continue;
        }
        match after.trim_start_matches([' ', '\t']).strip_prefix('=') {
            Some(value) => {
                let (value, after) = value_of(value.trim_start_matches([' ', '\t']));
                if let Some(challenge) = challenges.last_mut() {
                    challenge.parameters.push((name.to_ascii_lowercase(), value));
                }
                rest = after;
            }
            None => {
                challenges.push(Challenge { scheme: name.to_ascii_lowercase(), parameters: Vec::new() });
                rest = after;
            }
        }
    }
}

/// A token or a quoted string, and what follows it.
fn value_of(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(header: &str) -> Vec<(String, Vec<(String, String)>)> {
        parse(header).into_iter().map(|challenge| (challenge.scheme, challenge.parameters)).collect()
    }

    fn challenge(scheme: &str, parameters: &[(&str, &str)]) -> (String, Vec<(String, String)>) {
        let parameters = parameters.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        (scheme.to_owned(), parameters)
    }

    #[test]
    fn challenges_are_read_with_commas_where_they_may_be() {
        let realm = ("realm", "https://auth.example.org/token");
        for (header, expected) in [
            (
                r#"Bearer realm="https://auth.example.org/token",service="example.org",scope="repository:a/b:pull,push""#,
                vec![challenge("bearer", &[realm, ("service", "example.org"), ("scope", "repository:a/b:pull,push")])],
            ),
            (r#"Basic realm="a \"quoted\" name""#, vec![challenge("basic", &[("realm", "a \"quoted\" name")])]),
            (
                r#"Basic realm="x", BEARER Realm="https://auth.example.org/token""#,
                vec![challenge("basic", &[("realm", "x")]), challenge("bearer", &[realm])],
            ),
            (r#"Negotiate, Basic realm=x"#, vec![challenge("negotiate", &[]), challenge("basic", &[("realm", "x")])]),
            (r#"Bearer realm = "a" , service = b"#, vec![challenge("bearer", &[("realm", "a"), ("service", "b")])]),
            (r#"Bearer realm="unfinished"#, vec![challenge("bearer", &[("realm", "unfinished")])]),
            ("", vec![]),
            (",,=,", vec![]),
            ("=x", vec![challenge("x", &[])]),
        ] {
            assert_eq!(parsed(header), expected, "{header}");
        }
    }

    #[test]
    fn parameters_are_found_by_name() {
        let challenge = &parse(r#"Bearer realm="a",scope="b""#)[0];
        assert_eq!((challenge.get("scope"), challenge.get("service")), (Some("b"), None));
    }
}
