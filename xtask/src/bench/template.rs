//! Configurations: the templates in `bench/`, with `@NAMES@` filled in.

use std::path::{Path, PathBuf};

use crate::shell;

/// A template on its way to a configuration.
pub(super) struct Template {
    name: String,
    text: String,
    /// The same with long lists cut short, for the record.
    short: String,
}

/// What was used, for the record.
#[derive(Clone)]
pub(super) struct Configuration {
    /// The file's name.
    pub(super) name: String,
    pub(super) text: String,
}

impl Template {
    pub(super) fn open(name: &str) -> Result<Self, String> {
        let path = shell::root().join("bench").join(name);
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self { name: name.to_owned(), short: text.clone(), text })
    }

    /// Replaces `@KEY@`.
    pub(super) fn set(&mut self, key: &str, value: &str) {
        let key = format!("@{key}@");
        self.text = self.text.replace(&key, value);
        self.short = self.short.replace(&key, value);
    }

    /// Replaces the line `@KEY@` by lines.
    pub(super) fn lines(&mut self, key: &str, lines: impl Iterator<Item = String>) {
        let lines: Vec<String> = lines.map(|line| line + "\n").collect();
        let key = format!("@{key}@\n");
        self.text = self.text.replace(&key, &lines.concat());
        let short = if lines.len() > LINES_SHOWN {
            format!("{}# and {} more like these\n", lines[..LINES_SHOWN].concat(), lines.len() - LINES_SHOWN)
        } else {
            lines.concat()
        };
        self.short = self.short.replace(&key, &short);
    }

    /// Writes the whole into a folder.
    pub(super) fn write(self, folder: &Path, setup: &str) -> Result<(PathBuf, Configuration), String> {
        let file = folder.join(&self.name);
        std::fs::write(&file, &self.text).map_err(|error| format!("{}: {error}", file.display()))?;
        let name = match setup {
            "" => self.name,
            setup => format!("{}-{}", setup.replace([' ', ','], "-"), self.name),
        };
        Ok((file, Configuration { name, text: self.short }))
    }
}

/// Of a list of rules or endpoints, in the record.
const LINES_SHOWN: usize = 10;

#[cfg(test)]
mod tests {
    use super::Template;

    #[test]
    fn long_lists_are_whole_for_use_and_short_for_the_record() {
        let text = "listen @LISTEN@\n@ROUTES@\nend\n".to_owned();
        let mut template = Template { name: "a.conf".into(), short: text.clone(), text };
        template.set("LISTEN", "127.0.0.1:1");
        template.lines("ROUTES", (0..12).map(|number| format!("- {number}")));
        assert!(template.text.starts_with("listen 127.0.0.1:1\n- 0\n- 1\n"));
        assert!(template.text.ends_with("- 10\n- 11\nend\n"));
        assert!(template.short.ends_with("- 9\n# and 2 more like these\nend\n"), "{}", template.short);
    }

    #[test]
    fn an_empty_list_leaves_no_line() {
        let text = "a\n@ROUTES@\nb\n".to_owned();
        let mut template = Template { name: "a.conf".into(), short: text.clone(), text };
        template.lines("ROUTES", std::iter::empty());
        assert_eq!(template.text, "a\nb\n");
    }
}
