//! The files of the project, and Rust source with its comments and strings told apart from its code.

use std::path::Path;

/// Every text file of the project.
pub(crate) struct Tree {
    /// Sorted by path.
    pub(crate) files: Vec<File>,
}

/// One file.
pub(crate) struct File {
    /// From the root of the workspace, with `/`.
    pub(crate) path: String,
    /// All of it.
    pub(crate) text: String,
}

impl Tree {
    /// Reads everything below `root` that people write: not what is built, generated or recorded.
    pub(crate) fn read(root: &Path) -> Result<Self, String> {
        let mut files = Vec::new();
        let mut folders = vec![root.to_path_buf()];
        while let Some(folder) = folders.pop() {
            let entries =
                std::fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
            for entry in entries.flatten() {
                let path = entry.path();
                let relative = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
                let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
                if is_folder && !SKIPPED_FOLDERS.iter().any(|skipped| relative.ends_with(skipped)) {
                    folders.push(path);
                } else if relative.contains("/tests/") && !relative.ends_with(".rs") {
                    // Data of tests: wrong on purpose.
                } else if !is_folder && EXTENSIONS.iter().any(|extension| relative.ends_with(extension)) {
                    let text =
                        std::fs::read_to_string(&path).map_err(|error| format!("{relative}: {error}"))?;
                    files.push(File { path: relative, text });
                }
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self { files })
    }

    /// The files whose path ends so.
    pub(crate) fn ending<'a>(&'a self, end: &'a str) -> impl Iterator<Item = &'a File> {
        self.files.iter().filter(move |file| file.path.ends_with(end))
    }

    /// The file at this path; empty if there is none.
    pub(crate) fn text(&self, path: &str) -> &str {
        self.files.iter().find(|file| file.path == path).map_or("", |file| &file.text)
    }
}

/// Rust source in two layers of the same shape as the original: what belongs to the other layer is blank.
pub(crate) struct Layers {
    /// Without comments and without what stands inside strings.
    pub(crate) code: String,
    /// Comments only.
    pub(crate) comments: String,
}

impl Layers {
    /// Tells them apart. Wrong source gives wrong layers, never an error: the compiler speaks about that.
    pub(crate) fn of(source: &str) -> Self {
        let mut layers =
            Self { code: String::with_capacity(source.len()), comments: String::with_capacity(source.len()) };
        let chars: Vec<char> = source.chars().collect();
        let mut at = 0;
        while at < chars.len() {
            let rest = &chars[at..];
            if rest.starts_with(&['/', '/']) {
                let length = rest.iter().position(|&c| c == '\n').unwrap_or(rest.len());
                layers.push(&rest[..length], Layer::Comment);
                at += length;
            } else if rest.starts_with(&['/', '*']) {
                let length = block_comment(rest);
                layers.push(&rest[..length], Layer::Comment);
                at += length;
            } else if let Some(length) = string(rest, at > 0 && is_word(chars[at - 1])) {
                layers.push(&rest[..length], Layer::String);
                at += length;
            } else {
                layers.push(&rest[..1], Layer::Code);
                at += 1;
            }
        }
        layers
    }

    fn push(&mut self, piece: &[char], layer: Layer) {
        for &c in piece {
            let blank = if c == '\n' { '\n' } else { ' ' };
            self.code.push(if layer == Layer::Code { c } else { blank });
            self.comments.push(if layer == Layer::Comment { c } else { blank });
        }
    }
}

#[derive(PartialEq, Clone, Copy)]
enum Layer {
    Code,
    Comment,
    String,
}

/// The length of a block comment, nested ones within it.
fn block_comment(rest: &[char]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with(&['/', '*']) {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(&['*', '/']) {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// The length of the string or character literal that starts here, if one does.
fn string(rest: &[char], in_word: bool) -> Option<usize> {
    match rest[0] {
        '"' => Some(escaped(rest, 1, '"')),
        // A lifetime is no literal: `'a` has no quote after one character.
        '\'' if rest.get(1) == Some(&'\\') || rest.get(2) == Some(&'\'') => Some(escaped(rest, 1, '\'')),
        'r' | 'b' | 'c' if !in_word => {
            let prefix = rest.iter().take_while(|c| matches!(c, 'r' | 'b' | 'c')).count();
            let hashes = rest[prefix..].iter().take_while(|&&c| c == '#').count();
            let raw = rest[..prefix].contains(&'r');
            if prefix > 2 || rest.get(prefix + hashes) != Some(&'"') || (hashes > 0 && !raw) {
                return None;
            }
            if !raw {
                return Some(escaped(rest, prefix + 1, '"'));
            }
            let mut end = vec!['"'];
            end.resize(hashes + 1, '#');
            let body = prefix + hashes + 1;
            let length = rest[body..].windows(end.len()).position(|window| window == end);
            Some(length.map_or(rest.len(), |length| body + length + end.len()))
        }
        _ => None,
    }
}

/// The length of a literal up to its closing quote, from `at` on, passing over escapes.
fn escaped(rest: &[char], mut at: usize, quote: char) -> usize {
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            c if c == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// Whether a character can stand in an identifier.
pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The places where `word` stands as a whole word, as byte offsets.
pub(crate) fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        let goes_on_before = word.starts_with(is_word) && before.is_some_and(is_word);
        let goes_on_after = word.ends_with(is_word) && after.is_some_and(is_word);
        !goes_on_before && !goes_on_after
    })
}

/// The number of the line at a byte offset, from 1.
pub(crate) fn line_at(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

const EXTENSIONS: &[&str] = &[".rs", ".md", ".toml", ".yaml", ".yml", ".sh", ".conf", ".cfg", ".ci/run"];
/// Ends of paths of folders that hold nothing that people write.
const SKIPPED_FOLDERS: &[&str] =
    &["target", ".git", ".leno", "fuzz/corpus", "fuzz/artifacts", "bench/results", "proptest-regressions"];

#[cfg(test)]
mod tests {
    use super::Layers;

    #[track_caller]
    fn layers(source: &str, code: &str, comments: &str) {
        let layers = Layers::of(source);
        assert_eq!((layers.code.trim_end(), layers.comments.trim_end()), (code, comments));
    }

    #[test]
    fn comments_and_strings_are_blank_in_code() {
        layers("a // b", "a", "  // b");
        layers("a /* b /* c */ d */ e", "a                   e", "  /* b /* c */ d */");
        layers("f(\"//x\\\"y\") // z", "f(        )", "            // z");
        layers("r#\"un\"safe\"# x", "             x", "");
        layers("'\"' b'\\'' 'a str", "    b     'a str", "");
        layers("for r in b {}", "for r in b {}", "");
    }
}
