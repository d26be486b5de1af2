use leno_core::name::ServiceId;
use leno_core::time::UnixTime;
use leno_identity::token::{Grant, TokenRecord};

use super::*;

fn write(path: &Path, ops: &[Op]) {
    let database = Database::create(path).unwrap();
    commit(&database, ops).unwrap();
}

#[test]
fn records_are_read_back() {
    let token = StoredToken {
        record: TokenRecord {
            id: "abc".to_owned(),
            secret_sha256: [7; 32],
            grant: Grant::Gateway(ServiceId::parse("shop/public").unwrap()),
            uses_left: Some(3),
            expires: UnixTime(99),
        },
        recent: vec![[1; 32], [2; 32]],
    };
    assert_eq!(decode_token(&token.encode()), Ok(token));
    let reach = Reach {
        address: "[::1]:1".parse().unwrap(),
        version: None,
        weight: 0,
        tags: leno_core::spec::Tags::NONE,
    };
    for role in [RoleRecord::Sidecar(reach.clone()), RoleRecord::Plain(reach), RoleRecord::Gateway] {
        let member = MemberRecord {
            service: ServiceId::parse("cart").unwrap(),
            name: leno_core::name::Label::parse("cart-1").unwrap(),
            role,
            unhealthy: Some(String::new()),
            proxy_version: "1".to_owned(),
        };
        assert_eq!(decode_member(&member.encode()), Ok(member));
    }
    assert!(decode_member(&[1, 2, 3]).is_err());
    assert!(decode_member(&[]).is_err());
}

#[test]
fn what_is_kept_is_loaded_again() {
    let directory = tempfile::tempdir().unwrap();
    let (store, loaded, thread) = Store::open(Some(directory.path())).unwrap();
    assert_eq!(loaded.generation, 0);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let put = Op::Put(Table::Meta, GENERATION_KEY.to_owned(), 42_u64.to_be_bytes().to_vec());
    let gone = Op::Put(Table::Services, "default/x".to_owned(), vec![]);
    let receipt = store.keep(vec![put, gone, Op::Delete(Table::Services, "default/x".to_owned())]);
    runtime.block_on(receipt.kept()).unwrap();
    drop(store);
    thread.join().unwrap();
    let (_store, loaded, _) = Store::open(Some(directory.path())).unwrap();
    assert_eq!((loaded.generation, loaded.services.len()), (42, 0));
}

#[test]
fn another_layout_and_a_broken_record_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE_NAME);
    write(&path, &[Op::Put(Table::Meta, SCHEMA_KEY.to_owned(), vec![0, 0, 0, 9])]);
    let error = Store::open(Some(directory.path())).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("another version of Leno"), "{error}");

    let schema = Op::Put(Table::Meta, SCHEMA_KEY.to_owned(), SCHEMA_VERSION.to_be_bytes().to_vec());
    write(&path, &[schema, Op::Put(Table::Members, "default/cart/a".to_owned(), vec![255])]);
    let error = Store::open(Some(directory.path())).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("\"default/cart/a\" cannot be understood"), "{error}");
}

/// Memory that is full from some moment on.
#[derive(Debug)]
struct Full {
    memory: redb::backends::InMemoryBackend,
    full: Arc<std::sync::atomic::AtomicBool>,
}

impl Full {
    fn check(&self) -> std::io::Result<()> {
        if self.full.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

impl redb::StorageBackend for Full {
    fn len(&self) -> std::io::Result<u64> {
        self.memory.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.memory.read(offset, out)
    }
    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.check()?;
        self.memory.set_len(len)
    }
    fn sync_data(&self) -> std::io::Result<()> {
        self.check()?;
        self.memory.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.check()?;
        self.memory.write(offset, data)
    }
}

#[test]
fn a_full_disk_is_said_and_nothing_is_promised() {
    let full = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let backend = Full { memory: redb::backends::InMemoryBackend::new(), full: full.clone() };
    let database = Database::builder().create_with_backend(backend).unwrap();
    let (store, _, thread) = Store::start(database, Path::new("/state/leno.redb")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let op = || vec![Op::Put(Table::Services, "default/x".to_owned(), vec![1])];
    runtime.block_on(store.keep(op()).kept()).unwrap();
    full.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(runtime.block_on(store.keep(op()).kept()).is_err());
    let error = runtime.block_on(store.failed()).to_string();
    assert_eq!(error, "the disk is full: /state/leno.redb cannot be written");
    assert!(runtime.block_on(store.keep(op()).kept()).is_err());
    drop(store);
    thread.join().unwrap();
}
