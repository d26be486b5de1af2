//! Splits a command line into words as a shell would, without being a shell: quotes and backslashes, no
//! expansion. What only a shell can do is refused instead of being passed on as a plain word.

/// Why a command line cannot be split, and where (in characters from its start).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WordsError {
    /// No word at all.
    Empty,
    /// A quote that is never closed.
    Quote(usize, char),
    /// A backslash with nothing after it.
    Backslash(usize),
    /// Something that only a shell understands, such as `|` or `$`.
    Shell(usize, char),
}

/// The words of `line`.
pub(crate) fn split(line: &str) -> Result<Vec<String>, WordsError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars().enumerate();
    while let Some((at, c)) = chars.next() {
        match c {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        None => return Err(WordsError::Quote(at, c)),
                        Some((_, '\'')) => break,
                        Some((_, c)) => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        None => return Err(WordsError::Quote(at, c)),
                        Some((_, '"')) => break,
                        Some((at, c @ ('$' | '`'))) => return Err(WordsError::Shell(at, c)),
                        Some((at, '\\')) => match chars.next() {
                            None => return Err(WordsError::Backslash(at)),
                            Some((_, c @ ('"' | '\\' | '$' | '`'))) => word.push(c),
                            Some((_, c)) => word.extend(['\\', c]),
                        },
                        Some((_, c)) => word.push(c),
                    }
                }
            }
            '\\' => match chars.next() {
                None => return Err(WordsError::Backslash(at)),
                Some((_, c)) => word.get_or_insert_default().push(c),
            },
            '|' | '&' | ';' | '<' | '>' | '$' | '`' => return Err(WordsError::Shell(at, c)),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    if words.first().is_none_or(String::is_empty) { Err(WordsError::Empty) } else { Ok(words) }
}

#[cfg(test)]
mod tests {
    use super::{WordsError, split};

    #[test]
    fn splits_like_a_shell() {
        for (line, words) in [
            ("leno demo user", &["leno", "demo", "user"][..]),
            ("  a \t b\n", &["a", "b"]),
            (r#"nginx -g 'daemon off;'"#, &["nginx", "-g", "daemon off;"]),
            (r#"a "b c"d 'e'"f" """#, &["a", "b cd", "ef", ""]),
            (r#"a\ b "x\"y" "\n" '\'"#, &["a b", "x\"y", "\\n", "\\"]),
            ("echo {port} a=b *", &["echo", "{port}", "a=b", "*"]),
        ] {
            assert_eq!(
                split(line).as_deref(),
                Ok(words.iter().map(ToString::to_string).collect::<Vec<_>>()).as_deref(),
                "{line}"
            );
        }
    }

    #[test]
    fn refuses_what_it_cannot_do() {
        for (line, error) in [
            ("", WordsError::Empty),
            ("  ", WordsError::Empty),
            ("'' a", WordsError::Empty),
            ("a 'b", WordsError::Quote(2, '\'')),
            ("a \"b", WordsError::Quote(2, '"')),
            ("a\\", WordsError::Backslash(1)),
            ("a | b", WordsError::Shell(2, '|')),
            ("a \"$B\"", WordsError::Shell(3, '$')),
            ("a && b", WordsError::Shell(2, '&')),
        ] {
            assert_eq!(split(line), Err(error), "{line}");
        }
    }
}
