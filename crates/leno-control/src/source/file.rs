//! The mesh file: read at start, then whenever its content changes. A version with mistakes is reported and the one
//! before stays in force.
//!
//! Polled, not watched: editors, configuration tools and mounted volumes replace files in ways that file notifications
//! miss; comparing some kilobytes twice a second costs nothing and misses nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use leno_config::native::{self, MeshFile};
use leno_core::name::TrustDomain;
use leno_core::time::Duration;
use leno_wire::api::FileView;

use crate::mesh::Mesh;
use crate::registry::FileService;

/// A mesh file that is in force.
#[derive(Debug)]
pub(crate) struct Watched {
    /// Where it is.
    path: PathBuf,
    /// What was read last, good or bad, or why nothing could be.
    seen: Result<Vec<u8>, String>,
}

/// Reads the file for the first time.
///
/// # Errors
/// Everything that is wrong with it.
pub(crate) fn open(path: &Path) -> Result<(Watched, MeshFile), leno_config::diagnostic::Diagnostics> {
    // Before the content is parsed: a change between the two is then noticed, and parsed again.
    let seen = read(path);
    let file = native::load(path)?;
    Ok((Watched { path: path.to_owned(), seen }, file))
}

/// Puts a version in force.
pub(crate) fn put_in_force(mesh: &Mesh, path: &Path, file: MeshFile) {
    for warning in &file.warnings {
        tracing::warn!("{warning}");
    }
    let services = file
        .services
        .into_iter()
        .map(|entry| FileService { spec: entry.spec, endpoints: entry.endpoints })
        .collect();
    // The file itself is the record: nothing of it needs keeping.
    let ((), _) = mesh.change(|registry, now, effects| {
        registry.set_file(services, file.gateways, &file.egress, now, effects);
    });
    mesh.set_file_view(FileView {
        path: path.display().to_string(),
        loaded_unix: mesh.clock.unix().0,
        problem: None,
    });
}

impl Watched {
    /// Follows the file, forever.
    pub(crate) async fn follow(mut self, mesh: Arc<Mesh>) {
        loop {
            tokio::time::sleep(POLL_INTERVAL).await;
            let path = self.path.clone();
            let Ok(seen) = tokio::task::spawn_blocking(move || read(&path)).await else { continue };
            if seen == self.seen {
                continue;
            }
            self.seen = seen;
            let path = self.path.clone();
            let Ok(loaded) = tokio::task::spawn_blocking(move || native::load(&path)).await else { continue };
            let problem = match loaded {
                Ok(file) => match check_domain(&mesh, &file.trust_domain) {
                    None => {
                        put_in_force(&mesh, &self.path, file);
                        tracing::info!(file = %self.path.display(), "the mesh file changed and is in force");
                        continue;
                    }
                    Some(problem) => problem,
                },
                Err(diagnostics) => diagnostics.to_string(),
            };
            tracing::warn!(
                file = %self.path.display(),
                "the mesh file changed and cannot be used; the version before stays in force\n{problem}"
            );
            if let Some(view) = mesh.file() {
                mesh.set_file_view(FileView { problem: Some(problem), ..view });
            }
        }
    }
}

/// Why a file for `asked` cannot be used in this mesh.
fn check_domain(mesh: &Mesh, asked: &TrustDomain) -> Option<String> {
    let ours = mesh.trust_domain();
    (asked != ours).then(|| {
        format!("its trust domain is {asked}, this mesh's is {ours}; a mesh cannot change it while it runs")
    })
}

/// The file's content, at most [`FILE_BYTES_MAX`] of it.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    use std::io::Read;
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut content = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut content).map_err(|error| error.to_string())?;
    Ok(content)
}

/// How often the file is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// More than this is not a mesh file; the reader refuses it unread.
const FILE_BYTES_MAX: u64 = (4 << 20) + 1;
