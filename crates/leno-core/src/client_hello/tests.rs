use alloc::vec::Vec;

use super::*;
use crate::rng::Rng;

fn sized(length_bytes: usize, content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u32).to_be_bytes();
    [&length[4 - length_bytes..], content].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &sized(2, content)].concat()
}

fn sni(name: &[u8]) -> Vec<u8> {
    extension(0, &sized(2, &[&[0][..], &sized(2, name)].concat()))
}

fn alpn(names: &[&[u8]]) -> Vec<u8> {
    let list: Vec<u8> = names.iter().flat_map(|name| sized(1, name)).collect();
    extension(16, &sized(2, &list))
}

/// The message with these extensions, its head included.
fn message(extensions: &[Vec<u8>]) -> Vec<u8> {
    let extensions = sized(2, &extensions.concat());
    let content =
        [&[3, 3][..], &[7; 32], &sized(1, &[1; 32]), &sized(2, &[0x13, 1]), &sized(1, &[0]), &extensions];
    [&[1][..], &sized(3, &content.concat())].concat()
}

/// The message in records of at most so many bytes.
fn records(message: &[u8], bytes: usize) -> Vec<u8> {
    message.chunks(bytes).flat_map(|part| [&[22, 3, 1][..], &sized(2, part)].concat()).collect()
}

fn whole(stream: &[u8]) -> Result<Option<ClientHello>, Invalid> {
    Reader::default().take(stream)
}

/// The same, in pieces of up to so many bytes.
fn pieces(stream: &[u8], mut next: impl FnMut() -> usize) -> Result<Option<ClientHello>, Invalid> {
    let mut reader = Reader::default();
    let mut rest = stream;
    while !rest.is_empty() {
        let (piece, left) = rest.split_at(next().clamp(1, rest.len()));
        rest = left;
        if let Some(hello) = reader.take(piece)? {
            return Ok(Some(hello));
        }
    }
    Ok(None)
}

fn shop() -> ClientHello {
    ClientHello {
        server_name: Some("shop.example".into()),
        protocols: [&b"h2"[..], b"http/1.1"].map(Vec::from).into(),
    }
}

#[test]
fn however_it_is_split_it_says_the_same() {
    let padding = extension(21, &alloc::vec![0; 20_000]);
    let small = message(&[alpn(&[b"h2", b"http/1.1"]), sni(b"Shop.Example.")]);
    let large = message(&[padding, alpn(&[b"h2", b"http/1.1"]), sni(b"shop.example")]);
    let mut rng = Rng::new(3);
    for (message, sizes) in [(&small, &[1, 2, 7, 16_384][..]), (&large, &[100, 16_384])] {
        for size in sizes {
            let mut stream = records(message, *size);
            for end in [0, 1, 5, 6, stream.len() / 2, stream.len() - 1] {
                assert_eq!(whole(&stream[..end]), Ok(None), "cut at {end}");
            }
            stream.extend_from_slice(b"\x14\x03\x03 and what follows");
            assert_eq!(whole(&stream), Ok(Some(shop())));
            assert_eq!(pieces(&stream, || 1), Ok(Some(shop())));
            for _ in 0..20 {
                assert_eq!(pieces(&stream, || rng.below(2000) as usize), Ok(Some(shop())));
            }
        }
    }
}

#[test]
fn names_and_their_absence() {
    let name = |extensions: &[Vec<u8>]| {
        whole(&records(&message(extensions), 16_384)).map(|it| it.unwrap().server_name)
    };
    assert_eq!(name(&[]), Ok(None));
    assert_eq!(name(&[alpn(&[b"h2"])]), Ok(None));
    // A kind of name that nobody knows is skipped.
    assert_eq!(name(&[extension(0, &sized(2, &[&[9][..], &sized(2, b"x")].concat()))]), Ok(None));
    assert_eq!(name(&[sni(b"a_b.xn--bcher-kva.example")]), Ok(Some("a_b.xn--bcher-kva.example".into())));
    let long = [b'a'; 64];
    for bad in [
        &b""[..],
        b".",
        b"a..b",
        b"a b",
        b"a\0b",
        b"a/b",
        "bücher".as_bytes(),
        &long,
        &[b'a', b'.'].repeat(128),
    ] {
        assert_eq!(name(&[sni(bad)]), Err(Invalid::ServerName), "{bad:?}");
    }
    assert_eq!(name(&[sni(b"a"), sni(b"b")]), Err(Invalid::ServerName));
    let both = [&[0][..], &sized(2, b"a"), &[0], &sized(2, b"b")].concat();
    assert_eq!(name(&[extension(0, &sized(2, &both))]), Err(Invalid::ServerName));
    // Without extensions the message simply ends.
    let old =
        [&[1][..], &sized(3, &[&[3, 1][..], &[7; 32], &[0], &sized(2, &[0, 5]), &sized(1, &[0])].concat())];
    assert_eq!(whole(&records(&old.concat(), 99)), Ok(Some(ClientHello::default())));
}

#[test]
fn what_is_no_hello_is_refused_at_once() {
    assert_eq!(whole(b"GET / HTTP/1.1\r\n"), Err(Invalid::NoHandshake));
    assert_eq!(whole(b"\x16\x02\x00"), Err(Invalid::NoHandshake));
    // SSL 2.
    assert_eq!(whole(b"\x80\x2e\x01\x00\x02"), Err(Invalid::NoHandshake));
    assert_eq!(whole(b"\x16\x03\x01\x00\x00"), Err(Invalid::RecordLength));
    assert_eq!(whole(b"\x16\x03\x01\x40\x01"), Err(Invalid::RecordLength));
    assert_eq!(whole(b"\x16\x03\x01\x00\x04\x02"), Err(Invalid::NoClientHello));
    assert_eq!(whole(b"\x16\x03\x01\x00\x04\x01\x01\x00\x00"), Err(Invalid::TooLarge));
    // An alert between two records of the message.
    let stream = [&records(&message(&[sni(b"a")]), 20)[..25], b"\x15\x03\x01"].concat();
    assert_eq!(whole(&stream), Err(Invalid::NoHandshake));
    // So many records that they cost more than they carry.
    let tiny = records(&message(&[extension(21, &[0; 2000])]), 1);
    assert_eq!(whole(&tiny), Err(Invalid::TooLarge));
}

#[test]
fn lengths_that_lie_are_refused() {
    let good = message(&[alpn(&[b"h2"]), sni(b"shop.example")]);
    let content = &good[4..];
    for end in 0..content.len() {
        let cut = [&[1][..], &sized(3, &content[..end])].concat();
        let read = whole(&records(&cut, 16_384));
        // Exactly before the extensions the message may end.
        let before_extensions = 2 + 32 + 33 + 4 + 2;
        assert_eq!(read.is_ok(), end == before_extensions, "cut at {end}: {read:?}");
    }
    let longer = [&[1][..], &sized(3, &[content, b"x"].concat())].concat();
    assert_eq!(whole(&records(&longer, 16_384)), Err(Invalid::Malformed));
    assert_eq!(whole(&records(&message(&[extension(16, b"\0\x09\x02h2")]), 99)), Err(Invalid::Malformed));
}

#[test]
fn any_bytes_are_decided_within_the_limits() {
    let good = records(&message(&[alpn(&[b"h2"]), sni(b"shop.example")]), 40);
    let mut rng = Rng::new(5);
    for _ in 0..20_000 {
        let mut stream = good.clone();
        for _ in 0..=rng.below(3) {
            let at = rng.below(stream.len() as u64) as usize;
            stream[at] = rng.next_u64() as u8;
        }
        let verdict = whole(&stream);
        assert_eq!(pieces(&stream, || 1), verdict, "{stream:?}");
    }
    // A stream of records that never completes anything is over before the limit.
    let endless = records(&[&[1, 0, 0xff, 0xfc][..], &alloc::vec![0; 0xfffb]].concat(), 16_384);
    assert_eq!(whole(&endless), Ok(None));
    assert!(endless.len() <= STREAM_BYTES_MAX);
}
