//! The broker's jars, downloaded once by Maven and shared by all test processes.

use crate::{
    error::{Context, Error, Result},
    process::{find_program, run},
};
use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

/// Variable with the folder of the jars; by default `target/testbed` of this workspace.
pub(crate) const CACHE_VARIABLE: &str = "TIDINGS_TESTBED_CACHE";

/// Version of the broker: the one in `kafka/pom.xml`.
pub(crate) const VERSION: &str = "4.1.0";

const POM: &str = include_str!("../../kafka/pom.xml");
const LOG4J: &str = include_str!("../../kafka/log4j2.properties");

/// Users of every cluster, with their passwords.
pub(crate) const USERS: [(&str, &str); 3] =
    [("admin", "admin-secret"), ("alice", "alice-secret"), ("bob", "bob-secret")];

/// A broker installation that is ready to start.
#[derive(Debug, Clone)]
pub(crate) struct Install {
    java: PathBuf,
    dir: PathBuf,
}

impl Install {
    /// Finds Java and the jars, and downloads the jars if they are missing.
    pub(crate) fn find() -> Result<Self> {
        let java = find_java()?;
        let dir = cache_dir().join(format!("kafka-{VERSION}"));
        let install = Self { java, dir };
        fs::create_dir_all(&install.dir).at(&install.dir)?;
        // Test processes start together: the first one downloads, the others wait for it.
        let lock_path = install.dir.join("lock");
        let lock = File::create(&lock_path).at(&lock_path)?;
        lock.lock().at(&lock_path)?;
        install.fetch_jars()?;
        fs::write(install.log4j(), LOG4J).at(&install.log4j())?;
        install.format_template()?;
        Ok(install)
    }

    /// Returns the command that runs `class`'s main function.
    pub(crate) fn java(&self, flags: &[String], class: &str, args: &[String]) -> Vec<String> {
        let mut command = vec![self.java.display().to_string()];
        command.extend(["-XX:TieredStopAtLevel=1", "-Xshare:auto", "-XX:+UseSerialGC"].map(str::to_owned));
        command.extend(flags.iter().cloned());
        command.push(format!("-Dlog4j2.configurationFile={}", self.log4j().display()));
        command.push("-cp".to_owned());
        command.push(format!("{}/libs/*", self.dir.display()));
        command.push(class.to_owned());
        command.extend(args.iter().cloned());
        command
    }

    /// Runs a Java tool to completion and returns its output.
    pub(crate) fn run_tool(&self, class: &str, args: &[String]) -> Result<String> {
        let command = self.java(&["-Xmx256m".to_owned()], class, args);
        run(Command::new(&command[0]).args(&command[1..]))
    }

    /// Returns a formatted, empty log folder; a node's own differs in `meta.properties` only.
    pub(crate) fn template(&self) -> PathBuf {
        self.dir.join("template")
    }

    fn log4j(&self) -> PathBuf {
        self.dir.join("log4j2.properties")
    }

    fn fetch_jars(&self) -> Result<()> {
        let complete = self.dir.join("libs.complete");
        if fs::read_to_string(&complete).is_ok_and(|pom| pom == POM) {
            return Ok(());
        }
        let maven = find_program("mvn").ok_or_else(|| Error::unavailable("no Maven (mvn) to fetch Kafka's jars"))?;
        let pom = self.dir.join("pom.xml");
        fs::write(&pom, POM).at(&pom)?;
        let libs = self.dir.join("libs");
        let _none_yet = fs::remove_dir_all(&libs);
        run(Command::new(maven)
            .args(["-B", "-q", "dependency:copy-dependencies"])
            .arg(format!("-DoutputDirectory={}", libs.display()))
            .arg("-f")
            .arg(&pom))
        .map_err(|error| Error::unavailable(format!("Kafka's jars could not be fetched: {error}")))?;
        fs::write(&complete, POM).at(&complete)
    }

    /// Formats a log folder once: this saves a Java start per node, and creates the SCRAM users before the first
    /// start.
    fn format_template(&self) -> Result<()> {
        let template = self.template();
        if template.join("meta.properties").exists() {
            return Ok(());
        }
        let fresh = self.dir.join("template.new");
        let _none_yet = fs::remove_dir_all(&fresh);
        fs::create_dir_all(&fresh).at(&fresh)?;
        let config = self.dir.join("template.properties");
        fs::write(&config, template_config(&fresh)).at(&config)?;
        let mut args: Vec<String> = ["format", "-t", "dGlkaW5ncy10ZXN0YmVkMA", "-c"].map(str::to_owned).into();
        args.push(config.display().to_string());
        // With this feature on, brokers ignore `min.insync.replicas` in their files.
        args.extend(["--feature", "eligible.leader.replicas.version=0"].map(str::to_owned));
        for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
            for (user, password) in USERS {
                args.extend(["--add-scram".to_owned(), format!("{mechanism}=[name={user},password={password}]")]);
            }
        }
        self.run_tool("kafka.tools.StorageTool", &args)?;
        let _none_yet = fs::remove_dir_all(&template);
        fs::rename(&fresh, &template).at(&template)
    }
}

fn template_config(logs: &Path) -> String {
    format!(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:1\n\
         listeners=CONTROLLER://127.0.0.1:1,PLAINTEXT://127.0.0.1:2\ncontroller.listener.names=CONTROLLER\n\
         log.dirs={}\n",
        logs.display()
    )
}

fn find_java() -> Result<PathBuf> {
    let home = env::var_os("JAVA_HOME").map(|home| PathBuf::from(home).join("bin/java")).filter(|java| java.is_file());
    home.or_else(|| find_program("java")).ok_or_else(|| Error::unavailable("no Java to run Kafka"))
}

/// Returns the folder for files that outlive a run.
pub(crate) fn cache_dir() -> PathBuf {
    if let Some(dir) = env::var_os(CACHE_VARIABLE) {
        return dir.into();
    }
    let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target")).join("testbed")
}
