//! The state directory: mode 0700, with the database and the API token in it.

use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::error::ControlError;

/// Makes the directory if it is not there; only its owner may look into it.
pub(crate) fn prepare(path: &Path) -> Result<(), ControlError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    let closed = made.and_then(|()| std::fs::set_permissions(path, Permissions::from_mode(0o700)));
    closed.map_err(|error| ControlError::State { path: path.to_owned(), error })
}

/// The API token: read, or made at first start.
pub(crate) fn api_token(path: &Path) -> Result<String, ControlError> {
    let failed = |error| ControlError::State { path: path.join(TOKEN_FILE), error };
    match read(&path.join(TOKEN_FILE)) {
        Ok(token) => return Ok(token),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let token = random_token()?;
    write(path, &token).map_err(failed)?;
    Ok(token)
}

/// 256 random bits, hexadecimal.
pub(crate) fn random_token() -> Result<String, ControlError> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| ControlError::Authority("the operating system gives no random bytes".to_owned()))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Reads a token; an empty file is damaged.
fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(TOKEN_BYTES_MAX).read_to_string(&mut text)?;
    match text.trim() {
        "" => Err(io::Error::new(io::ErrorKind::InvalidData, "it is empty; remove it to get a new token")),
        token => Ok(token.to_owned()),
    }
}

/// Writes beside and renames, so that the file is whole whenever it is there.
fn write(directory: &Path, token: &str) -> io::Result<()> {
    let new = directory.join(format!("{TOKEN_FILE}.new"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(format!("{token}\n").as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, directory.join(TOKEN_FILE))
}

/// The API token's file in the state directory.
const TOKEN_FILE: &str = "api-token";
/// Longer files are no tokens.
const TOKEN_BYTES_MAX: u64 = 1024;
