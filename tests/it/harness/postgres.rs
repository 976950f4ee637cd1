//! PostgreSQL beside the broker: a schema of a test's own, and a server to end.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_postgres::NoTls;

/// A schema in the database that the tests were given; dropped with it.
pub(crate) struct Schema {
    server: String,
    name: String,
}

impl Schema {
    /// `None`, with a word, where the tests were given no database.
    pub(crate) fn make() -> Option<Self> {
        let schema = Self {
            server: given()?,
            name: format!("levada_it_{}", uuid::Uuid::new_v4().simple()),
        };
        schema.run(&format!("create schema {}", schema.name));
        Some(schema)
    }

    /// A URL with which only this schema is seen.
    pub(crate) fn url(&self) -> String {
        let mark = if self.server.contains('?') { '&' } else { '?' };
        let options = format!("options=-csearch_path%3D{}", self.name);
        format!("{}{mark}{options}", self.server)
    }

    fn run(&self, statement: &str) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(&self.server, NoTls).await.unwrap();
            tokio::select! {
                done = client.batch_execute(statement) => done.unwrap(),
                ended = connection => panic!("the connection ended: {ended:?}"),
            }
        });
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        self.run(&format!("drop schema {} cascade", self.name));
    }
}

fn given() -> Option<String> {
    let server = std::env::var("TEST_POSTGRES_URL").ok();
    if server.is_none() {
        eprintln!("skipped: TEST_POSTGRES_URL is not set (tests/run sets it)");
    }
    server
}

/// A server of a test's own, to be started and ended; killed when dropped.
pub(crate) struct Server {
    directory: tempfile::TempDir,
}

impl Server {
    /// A server that does not run yet; `None`, with the reason on stderr, where none can be started.
    pub(crate) fn prepare() -> Option<Self> {
        given()?;
        let check = script().arg("check").output().unwrap();
        if !check.status.success() {
            let why = String::from_utf8_lossy(&check.stderr);
            eprintln!("skipped: no PostgreSQL can be started here: {why}");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        // Root starts it as nobody, who has to get there.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o711)).unwrap();
        let server = Self { directory };
        // Its port is known from its first start on.
        server.start();
        server.kill();
        Some(server)
    }

    /// Has it speak TLS, with a certificate for 127.0.0.1 of an authority that nobody knows; returns
    /// where that one's certificate is. Before a start.
    pub(crate) fn speak_tls(&self) -> PathBuf {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        let data = self.directory.path().join("server/data");
        let owner = fs::metadata(&data).unwrap();
        for (file, pem) in [
            ("server.crt", certificate.pem()),
            ("server.key", key.serialize_pem()),
        ] {
            let path = data.join(file);
            fs::write(&path, pem).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            std::os::unix::fs::chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
        }
        let mut config = fs::OpenOptions::new()
            .append(true)
            .open(data.join("postgresql.conf"))
            .unwrap();
        config.write_all(b"ssl = on\n").unwrap();
        let trusted = self.directory.path().join("authority.pem");
        fs::write(&trusted, authority.pem()).unwrap();
        trusted
    }

    /// Where it is, running or not.
    pub(crate) fn url(&self) -> String {
        let port = fs::read_to_string(self.directory.path().join("server/port")).unwrap();
        format!("postgres://levada@127.0.0.1:{}/postgres", port.trim())
    }

    /// Starts it and waits until it takes connections.
    pub(crate) fn start(&self) {
        self.run("start");
    }

    /// `kill -9`, all its processes; [`Server::start`] brings it back with its data.
    pub(crate) fn kill(&self) {
        self.run("kill");
    }

    fn run(&self, what: &str) {
        let mut command = script();
        command.arg(what).arg(self.directory.path().join("server"));
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {said}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let server = self.directory.path().join("server");
        script().arg("kill").arg(server).output().ok();
    }
}

fn script() -> Command {
    Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/postgres/run"))
}
