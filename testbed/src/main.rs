//! Servers for interactive use and for `cargo xtask test`; see the usage below.

use std::{
    env,
    io::{self, Read, Write},
    process::ExitCode,
};
use tidings_testbed::{
    Error, Held, KAFKA_VARIABLE, Kafka, KafkaOptions, POSTGRES_VARIABLE, Postgres, PostgresOptions, Result,
};

const USAGE: &str = "\
testbed COMMAND

  kafka up [--nodes 3]   starts a Kafka cluster that goes on in the background, and prints its bootstrap servers
  kafka status | down    prints where it is; ends it
  postgres up            starts a Postgres server that goes on in the background, and prints its URL
  postgres status | down
  serve                  starts what this machine can, prints NAME=VALUE or `missing NAME: why` for each, then `ready`,
                         and ends when its input closes";

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<_> = env::args().skip(1).collect();
    let words: Vec<_> = args.iter().map(String::as_str).collect();
    match run(&words).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("testbed: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &[&str]) -> Result<()> {
    match args {
        ["kafka", "up", rest @ ..] => {
            let nodes = nodes(rest)?;
            let hold = ["kafka", "hold", "--nodes", &nodes.to_string()].map(str::to_owned);
            say(&Held::new("kafka").up(&hold)?)
        }
        ["kafka", "hold", rest @ ..] => hold_kafka(nodes(rest)?).await,
        ["postgres", "up"] => say(&Held::new("postgres").up(&["postgres", "hold"].map(str::to_owned))?),
        ["postgres", "hold"] => hold_postgres().await,
        [name @ ("kafka" | "postgres"), "status"] => match Held::new(*name).url()? {
            Some(url) => say(&url),
            None => Err(Error::failed(format!("{name} is not running"))),
        },
        [name @ ("kafka" | "postgres"), "down"] => match Held::new(*name).down()? {
            true => say(&format!("{name} has ended")),
            false => say(&format!("{name} was not running")),
        },
        ["serve"] => serve().await,
        _ => Err(Error::failed(format!("unknown command\n\n{USAGE}"))),
    }
}

fn nodes(args: &[&str]) -> Result<usize> {
    match args {
        [] => Ok(1),
        ["--nodes", nodes] => {
            nodes.parse().map_err(|_| Error::failed(format!("--nodes: expected a number, got {nodes:?}")))
        }
        _ => Err(Error::failed(format!("unknown arguments {args:?}\n\n{USAGE}"))),
    }
}

async fn hold_kafka(nodes: usize) -> Result<()> {
    let claim = Held::new("kafka").claim()?;
    let kafka = Kafka::start(KafkaOptions::new().with_nodes(nodes)).await?;
    claim.hold(&kafka.bootstrap())
}

async fn hold_postgres() -> Result<()> {
    let claim = Held::new("postgres").claim()?;
    let postgres = Postgres::start(PostgresOptions::new()).await?;
    claim.hold(&postgres.url())
}

/// Starts both at once, except for a server given by a variable.
async fn serve() -> Result<()> {
    let kafka = async {
        if env::var_os(KAFKA_VARIABLE).is_some() {
            return Ok(None);
        }
        let kafka = Kafka::start(KafkaOptions::new()).await;
        report(KAFKA_VARIABLE, "Kafka", kafka.as_ref().map(Kafka::bootstrap))?;
        Ok::<_, Error>(kafka.ok())
    };
    let postgres = async {
        if env::var_os(POSTGRES_VARIABLE).is_some() {
            return Ok(None);
        }
        let postgres = Postgres::start(PostgresOptions::new()).await;
        report(POSTGRES_VARIABLE, "Postgres", postgres.as_ref().map(Postgres::url))?;
        Ok::<_, Error>(postgres.ok())
    };
    let servers = tokio::try_join!(kafka, postgres)?;
    say("ready")?;
    let closed = tokio::task::spawn_blocking(|| io::stdin().read_to_end(&mut Vec::new())).await;
    drop(servers);
    closed.map(drop).map_err(|error| Error::failed(format!("wait for the input's end: {error}")))
}

fn report(variable: &str, name: &str, place: Result<String, &Error>) -> Result<()> {
    match place {
        Ok(place) => say(&format!("{variable}={place}")),
        // A single line, as the reader reads line by line.
        Err(error) => say(&format!("missing {name}: {}", error.to_string().replace('\n', " | "))),
    }
}

fn say(line: &str) -> Result<()> {
    let mut out = io::stdout();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|error| Error::failed(format!("print: {error}")))
}
