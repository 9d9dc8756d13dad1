//! nginx, HAProxy and Envoy with the configuration files of docs/proxies.md, in which only the ports, the
//! names and the folders are replaced.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use super::scene::Scene;
use crate::support::{
    markdown::blocks,
    program::stdout,
    tools::{repository, tool},
    wait::until_blocking,
};

const START_LIMIT: Duration = Duration::from_secs(20);

/// A program, and the name of its file in docs/proxies.md.
#[derive(Debug, Clone, Copy)]
pub enum Program {
    Nginx,
    Haproxy,
    Envoy,
}

impl Program {
    const fn file(self) -> &'static str {
        match self {
            Self::Nginx => "nginx.conf",
            Self::Haproxy => "haproxy.cfg",
            Self::Envoy => "envoy.yaml",
        }
    }

    /// Returns the command that runs the program in the foreground, with all its files in `folder`.
    fn command(self, folder: &Path) -> Command {
        let file = folder.join(self.file());
        let mut command = match self {
            Self::Nginx => Command::new(system_program("nginx")),
            Self::Haproxy => Command::new(system_program("haproxy")),
            Self::Envoy => Command::new(tool("envoy")),
        };
        match self {
            Self::Nginx => {
                let settings = "daemon off; master_process off;";
                command.args(["-e", "stderr", "-g", settings, "-p"]).arg(folder).arg("-c")
            }
            Self::Haproxy => command.args(["-db", "-f"]),
            Self::Envoy => {
                // By default it writes its log every 10 s.
                let flush = ["--file-flush-interval-msec", "50"];
                command.args(["--disable-hot-restart", "--concurrency", "1"]).args(flush).arg("-c")
            }
        };
        command.arg(file).current_dir(folder);
        command
    }
}

/// Returns the path of a program that Debian installs in /usr/sbin, which is not in the path of every user.
fn system_program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    let mut programs = folders.map(|folder| folder.join(name));
    programs
        .find(|program| program.is_file())
        .unwrap_or_else(|| panic!("{name} is missing: run `scripts/setup test`"))
}

/// A running proxy in front of the service of a scene.
pub struct Proxy {
    process: Child,
    folder: TempDir,
    api: u16,
    pages: u16,
}

impl Proxy {
    pub fn start(program: Program, scene: &Scene) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (chain, key) = (scene.certificate().certificate(), scene.certificate().key());
        let both = [fs::read(&chain).unwrap(), fs::read(&key).unwrap()].concat();
        fs::write(folder.path().join("haproxy.pem"), both).unwrap();
        fs::copy(&chain, folder.path().join("proxy.pem")).unwrap();
        fs::copy(&key, folder.path().join("proxy.key")).unwrap();
        fs::copy(&chain, folder.path().join("ca.pem")).unwrap();
        let [api, pages] = free_ports();
        let ports = [
            ("50051", scene.server.address().port()),
            ("50080", scene.server.http_address().port()),
            ("50443", api),
            ("443", pages),
        ];
        let configuration = with_ports(&documented(program.file()), &ports)
            .replace("identity.kairos.example", "localhost")
            .replace("/etc/kairos-identity", folder.path().to_str().unwrap())
            .replace("/var/log/nginx", folder.path().to_str().unwrap())
            .replace("/run/nginx.pid", "nginx.pid")
            .replace("http {\n", &format!("http {{\n{}", temporary_folders()));
        fs::write(folder.path().join(program.file()), configuration).unwrap();
        // Envoy opens its standard output once more, so each write must go to the end of the file.
        let output =
            fs::File::options().create(true).append(true).open(folder.path().join("output.log")).unwrap();
        let process = program
            .command(folder.path())
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        let mut proxy = Self { process, folder, api, pages };
        until_blocking("the proxy listens", START_LIMIT, || proxy.is_listening().then_some(()));
        proxy
    }

    fn is_listening(&mut self) -> bool {
        let ended = self.process.try_wait().unwrap();
        assert!(ended.is_none(), "{ended:?}: {}", self.logs());
        [self.api, self.pages].iter().all(|port| TcpStream::connect(("127.0.0.1", *port)).is_ok())
    }

    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.api)
    }

    /// Returns the logs: each `*.log` in the folder.
    pub fn logs(&self) -> String {
        let files = fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let logs = files.filter(|file| file.extension().is_some_and(|extension| extension == "log"));
        logs.map(|log| fs::read_to_string(log).unwrap()).collect()
    }

    /// Requests a page as a browser does; returns the status.
    pub fn open(&self, scene: &Scene, link: &str) -> String {
        let url = format!("https://localhost:{}{link}", self.pages);
        let output = Command::new("curl")
            .args([
                "--silent",
                "--noproxy",
                "*",
                "--output",
                "/dev/null",
                "--write-out",
                "%{http_code}",
                "--cacert",
            ])
            .arg(scene.certificate().certificate())
            .arg(url)
            .output()
            .unwrap();
        stdout(&output)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
        if std::thread::panicking() {
            eprintln!("---- the logs of the proxy ----\n{}", self.logs());
        }
    }
}

/// Returns the file `name` of docs/proxies.md: the block whose first line is `# NAME`.
fn documented(name: &str) -> String {
    let page = fs::read_to_string(repository().join("docs/proxies.md")).unwrap();
    let first_line = format!("# {name}\n");
    let file = blocks(&page).into_iter().find(|block| block.text.starts_with(&first_line));
    file.unwrap_or_else(|| panic!("docs/proxies.md has no {name}")).text
}

/// Replaces the ports, which are whole numbers in the text.
fn with_ports(text: &str, ports: &[(&str, u16)]) -> String {
    let is_number = |c: char| c.is_ascii_digit();
    let mut replaced = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(is_number) {
        let (before, from) = rest.split_at(start);
        let (number, after) = from.split_at(from.find(|c| !is_number(c)).unwrap_or(from.len()));
        let port = ports.iter().find(|(documented, _)| *documented == number);
        replaced += before;
        replaced += &port.map_or_else(|| number.to_owned(), |(_, port)| port.to_string());
        rest = after;
    }
    replaced + rest
}

/// Returns two ports that are free now. Both are taken at the same time, so they differ.
fn free_ports() -> [u16; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

/// Returns settings of nginx with which it uses only the folder of the test: its default folders for
/// temporary files need root.
fn temporary_folders() -> String {
    let setting = |module: &str| {
        let name = if module == "client" {
            "client_body_temp_path".to_owned()
        } else {
            format!("{module}_temp_path")
        };
        format!("{name} {module};\n")
    };
    ["client", "proxy", "fastcgi", "uwsgi", "scgi"].map(setting).concat()
}
