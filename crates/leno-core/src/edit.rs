//! Header changes as a list of edits: a head is forwarded as the bytes that came, with these applied while it is
//! encoded. The list is kept and refilled, so that its allocations are paid once per connection.

use alloc::vec::Vec;

use crate::head::{Fields, Span};

/// What to change in a head on its way through.
#[derive(Clone, Debug, Default)]
pub struct Edits {
    /// Names and values of the edits, one after the other.
    bytes: Vec<u8>,
    /// The edits, in the order they were made.
    list: Vec<Edit>,
}

/// One change.
#[derive(Clone, Copy, Debug)]
enum Edit {
    /// Every field of this name goes.
    Remove(Span),
    /// This field is added at the end.
    Add(Span, Span),
}

impl Edits {
    /// No edits.
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), list: Vec::new() }
    }

    /// Forgets every edit and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.list.clear();
    }

    /// True when there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Removes every field called `name`, in any case.
    pub fn remove(&mut self, name: &[u8]) {
        let name = self.keep(name);
        self.list.push(Edit::Remove(name));
    }

    /// Adds a field beside those that are there. Both must be valid field text: they are written as they are.
    pub fn add(&mut self, name: &[u8], value: &[u8]) {
        let (name, value) = (self.keep(name), self.keep(value));
        self.list.push(Edit::Add(name, value));
    }

    /// Makes `name` have exactly this value.
    pub fn set(&mut self, name: &[u8], value: &[u8]) {
        self.remove(name);
        self.add(name, value);
    }

    /// Removes every field called `name`, also those that an edit before this one has added.
    pub fn remove_all(&mut self, name: &[u8]) {
        let Self { bytes, list } = self;
        list.retain(|edit| match edit {
            Edit::Remove(_) => true,
            Edit::Add(added, _) => !added.of(bytes).eq_ignore_ascii_case(name),
        });
        self.remove(name);
    }

    /// Adds a field with the value that `write` appends.
    pub fn add_with(&mut self, name: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
        let name = self.keep(name);
        let start = self.bytes.len();
        write(&mut self.bytes);
        self.list.push(Edit::Add(name, Span::new(start, self.bytes.len())));
    }

    /// Makes `name` have the value that `write` appends.
    pub fn set_with(&mut self, name: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
        self.remove(name);
        self.add_with(name, write);
    }

    /// Makes the changes of `others`, too.
    pub fn append(&mut self, others: &Self) {
        for edit in &others.list {
            match edit {
                Edit::Remove(name) => self.remove(name.of(&others.bytes)),
                Edit::Add(name, value) => self.add(name.of(&others.bytes), value.of(&others.bytes)),
            }
        }
    }

    /// True when a field of this name is to go.
    pub fn removes(&self, name: &[u8]) -> bool {
        self.list.iter().any(|edit| match edit {
            // Nearly always the length tells already.
            Edit::Remove(removed) => {
                (removed.end - removed.start) as usize == name.len()
                    && removed.of(&self.bytes).eq_ignore_ascii_case(name)
            }
            Edit::Add(..) => false,
        })
    }

    /// The fields to add, in order.
    pub fn added(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.list.iter().filter_map(|edit| match edit {
            Edit::Remove(_) => None,
            Edit::Add(name, value) => Some((name.of(&self.bytes), value.of(&self.bytes))),
        })
    }

    /// The fields of a head after the edits, in the order they are written.
    pub fn applied<'a>(&'a self, fields: Fields<'a>) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        fields
            .iter()
            .filter(|(_, name, _)| self.list.is_empty() || !self.removes(name))
            .map(|(_, name, value)| (name, value))
            .chain(self.added())
    }

    fn keep(&mut self, text: &[u8]) -> Span {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(text);
        Span::new(start, self.bytes.len())
    }
}
