//! HPACK: RFC 7541, with its sections.

use super::{Case, HERE, get, request};
use crate::frame::{WHOLE, code, headers, setting};
use crate::hpack::{entered, integer, literal, table_size};

pub(super) fn cases() -> Vec<Case> {
    [representations(), sizes(), tables(), errors()].into_iter().flatten().collect()
}

/// "custom-key" and "custom-value" as Huffman's code has them (section C.6).
const KEY: &[u8] = &[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f];
const VALUE: &[u8] = &[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf];
/// The index of `user-agent` in the static table.
const USER_AGENT: usize = 58;
/// The first index of the dynamic table.
const DYNAMIC: usize = 62;

/// A GET with more of a block behind its own.
fn with(more: &[u8]) -> Vec<u8> {
    headers(1, WHOLE, &[request("GET", HERE), more.to_vec()].concat())
}

/// A GET with a size update before its block.
fn after(updates: &[u8]) -> Vec<u8> {
    headers(1, WHOLE, &[updates.to_vec(), request("GET", HERE)].concat())
}

/// A literal: what its first byte says, its name if that is new, and its value, each coded by Huffman or not.
fn field(first: Vec<u8>, name: Option<(&[u8], bool)>, value: (&[u8], bool)) -> Vec<u8> {
    let mut bytes = first;
    for (text, coded) in name.into_iter().chain([value]) {
        bytes.extend(integer(if coded { 0x80 } else { 0 }, 7, text.len()));
        bytes.extend(text);
    }
    bytes
}

fn representations() -> Vec<Case> {
    const PLAIN: (&[u8], bool) = (b"conforms", false);
    const CODED: (&[u8], bool) = (VALUE, true);
    vec![
        Case::answer("7541 6.1", "an indexed field", || with(&integer(0x80, 7, USER_AGENT))),
        Case::answer("7541 6.1", "a request of indexed fields", || {
            // GET, http, / of the static table, and an authority.
            let block = [&[0x82, 0x86, 0x84][..], &field(vec![0x41], None, (b"server", false))].concat();
            headers(1, WHOLE, &block)
        }),
        Case::answer("7541 6.2.1", "entered, indexed name", || {
            with(&field(integer(0x40, 6, USER_AGENT), None, PLAIN))
        }),
        Case::answer("7541 6.2.1", "entered, indexed name, Huffman", || {
            with(&field(integer(0x40, 6, USER_AGENT), None, CODED))
        }),
        Case::answer("7541 6.2.1", "entered, new name", || {
            with(&field(vec![0x40], Some((b"x-test", false)), PLAIN))
        }),
        Case::answer("7541 6.2.1", "entered, new name, Huffman", || {
            with(&field(vec![0x40], Some((KEY, true)), CODED))
        }),
        Case::answer("7541 6.2.2", "not entered, indexed name", || {
            with(&field(integer(0, 4, USER_AGENT), None, PLAIN))
        }),
        Case::answer("7541 6.2.2", "not entered, indexed name, Huffman", || {
            with(&field(integer(0, 4, USER_AGENT), None, CODED))
        }),
        Case::answer("7541 6.2.2", "not entered, new name", || {
            with(&field(vec![0], Some((b"x-test", false)), PLAIN))
        }),
        Case::answer("7541 6.2.2", "not entered, new name, Huffman", || {
            with(&field(vec![0], Some((KEY, true)), CODED))
        }),
        Case::answer("7541 6.2.3", "never entered, indexed name", || {
            with(&field(integer(0x10, 4, USER_AGENT), None, PLAIN))
        }),
        Case::answer("7541 6.2.3", "never entered, indexed name, Huffman", || {
            with(&field(integer(0x10, 4, USER_AGENT), None, CODED))
        }),
        Case::answer("7541 6.2.3", "never entered, new name", || {
            with(&field(vec![0x10], Some((b"x-test", false)), PLAIN))
        }),
        Case::answer("7541 6.2.3", "never entered, new name, Huffman", || {
            with(&field(vec![0x10], Some((KEY, true)), CODED))
        }),
    ]
}

fn sizes() -> Vec<Case> {
    const CODES: &[u32] = &[code::COMPRESSION];
    vec![
        Case::answer("7541 6.3", "a size update", || after(&table_size(128))),
        Case::answer("7541 4.2", "two size updates", || after(&[table_size(128), table_size(4096)].concat())),
        Case::answer("7541 6.3", "a size update to 0", || after(&table_size(0))),
        Case::connection_error("7541 4.2", "a size update at a block's end is an error", CODES, || {
            with(&table_size(1))
        }),
        Case::connection_error("7541 4.2", "a size update between fields is an error", CODES, || {
            with(&[table_size(1), literal("x-test", b"ok")].concat())
        }),
        Case::after_hands("7541 6.3", "a size update above what is allowed is an error", |peer| {
            let most = peer.setting(setting::HEADER_TABLE_SIZE).unwrap_or(4096) as usize;
            peer.send(&after(&table_size(most + 1)));
            peer.connection_error(CODES)
        }),
        Case::after_hands("7541 4.3", "a size update to 0 empties the table", |peer| {
            let first = [request("GET", HERE), entered("x-test", b"ok")].concat();
            peer.send(&headers(1, WHOLE, &first));
            peer.answer(1)?;
            let block = [table_size(0), request("GET", HERE), integer(0x80, 7, DYNAMIC)].concat();
            peer.send(&headers(3, WHOLE, &block));
            peer.connection_error(CODES)
        }),
    ]
}

fn tables() -> Vec<Case> {
    vec![
        Case::after_hands("7541 2.3.2", "what was entered is known in the next block", |peer| {
            let first = [request("GET", HERE), entered("x-test", b"ok")].concat();
            peer.send(&headers(1, WHOLE, &first));
            peer.answer(1)?;
            peer.send(&headers(3, WHOLE, &[request("GET", HERE), integer(0x80, 7, DYNAMIC)].concat()));
            peer.answer(3)
        }),
        Case::after_hands("7541 2.3.2", "what a malformed request entered is known too", |peer| {
            let block = [entered("x-test", b"ok"), request("GET", HERE)].concat();
            peer.send(&headers(1, WHOLE, &block));
            peer.stream_error(1, &[code::PROTOCOL])?;
            peer.send(&headers(3, WHOLE, &[request("GET", HERE), integer(0x80, 7, DYNAMIC)].concat()));
            peer.answer(3)
        }),
        Case::after_hands("7541 4.4", "the oldest entry makes room", |peer| {
            // Two of 2,000 bytes fit beside nothing else; the third drives the first out.
            let long = vec![b'x'; 2_000];
            let three: Vec<u8> = ["x-a", "x-b", "x-c"].iter().flat_map(|name| entered(name, &long)).collect();
            peer.send(&headers(1, WHOLE, &[request("GET", HERE), three].concat()));
            peer.answer(1)?;
            let known = integer(0x80, 7, DYNAMIC + 1);
            peer.send(&headers(3, WHOLE, &[request("GET", HERE), known].concat()));
            peer.answer(3)?;
            let gone = integer(0x80, 7, DYNAMIC + 2);
            peer.send(&headers(5, WHOLE, &[request("GET", HERE), gone].concat()));
            peer.connection_error(&[code::COMPRESSION])
        }),
        Case::after_hands("7541 4.4", "an entry larger than the table empties it and is no error", |peer| {
            let block = [request("GET", HERE), entered("x-a", b"a"), entered("x-b", &[b'x'; 5_000])].concat();
            peer.send(&headers(1, WHOLE, &block));
            peer.answer(1)?;
            peer.send(&get(3, HERE));
            peer.answer(3)?;
            peer.send(&headers(5, WHOLE, &[request("GET", HERE), integer(0x80, 7, DYNAMIC)].concat()));
            peer.connection_error(&[code::COMPRESSION])
        }),
    ]
}

fn errors() -> Vec<Case> {
    const CODES: &[u32] = &[code::COMPRESSION];
    vec![
        Case::connection_error("7541 2.3.3", "an index beyond the tables is an error", CODES, || {
            with(&integer(0x80, 7, 70))
        }),
        Case::connection_error("7541 2.3.3", "a name's index beyond the tables is an error", CODES, || {
            with(&[integer(0x40, 6, 70), vec![0]].concat())
        }),
        Case::connection_error("7541 6.1", "index 0 is an error", CODES, || with(&[0x80])),
        Case::connection_error("7541 5.1", "an integer without end is an error", CODES, || with(&[0xff; 40])),
        Case::connection_error("7541 5.1", "a block that ends in an integer is an error", CODES, || {
            with(&[0xff])
        }),
        Case::connection_error("7541 5.2", "a string longer than its block is an error", CODES, || {
            with(&[0x00, 0x7e, b'x'])
        }),
        Case::connection_error("7541 5.2", "a block that ends after a name is an error", CODES, || {
            with(b"\0\x06x-test")
        }),
        Case::connection_error("7541 5.2", "padding of more than 7 bits is an error", CODES, || {
            with(&field(vec![0], Some((KEY, true)), (&[VALUE, &[0xff]].concat(), true)))
        }),
        Case::connection_error("7541 5.2", "padding with zeros is an error", CODES, || {
            // "a" has five bits: 00011.
            with(&field(vec![0], Some((KEY, true)), (&[0x18], true)))
        }),
        Case::connection_error("7541 5.2", "the end symbol in a string is an error", CODES, || {
            // "a", the 30 bits of the end symbol, and padding.
            with(&field(vec![0], Some((KEY, true)), (&[0x1f, 0xff, 0xff, 0xff, 0xff], true)))
        }),
    ]
}
