//! Calls: in a closed loop (each worker waits for its answer) or an open one (calls leave at a fixed rate, so that the
//! time they wait is counted and not hidden).

#![expect(
    clippy::disallowed_methods,
    clippy::doc_markdown,
    reason = "it measures real time; clap shows its comments"
)]

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use kairos_identity::proto::{
    LoginRequest, ResolveTokenRequest, ResolveTokensRequest, identity_service_client::IdentityServiceClient,
};
use tokio::task::JoinSet;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use crate::{
    Failure,
    measure::{Measure, Outcome},
    tokens::{Draw, PASSWORD, auth_token, email},
};

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Rpc {
    /// ResolveToken, its answer checked
    Resolve,
    /// ResolveToken against `echo`, whose answer is always the same
    Echo,
    /// ResolveTokens of `--batch` tokens
    ResolveBatch,
    /// Login with the right password
    Login,
}

#[derive(Debug, Args)]
pub struct Run {
    /// Where the service is
    #[arg(long, default_value = "http://127.0.0.1:50051")]
    url: String,
    /// What to call
    #[arg(long, value_enum, default_value = "resolve")]
    rpc: Rpc,
    /// How many users `seed` made
    #[arg(long, default_value_t = 100_000)]
    users: u64,
    /// Connections
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Calls in flight, over all connections (closed loop)
    #[arg(long, default_value_t = 128)]
    in_flight: usize,
    /// Calls a second (open loop) instead
    #[arg(long)]
    rate: Option<u32>,
    /// Tokens in one ResolveTokens
    #[arg(long, default_value_t = 100)]
    batch: usize,
    /// Seconds before the measure begins
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// Seconds of the measure
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// What the draw of users begins with
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// One caller.
struct Caller {
    client: IdentityServiceClient<Channel>,
    draw: Draw,
    rpc: Rpc,
    batch: usize,
}

impl Run {
    pub async fn run(self) -> Result<(), Failure> {
        let mut channels = Vec::new();
        for _ in 0..self.connections {
            channels.push(Endpoint::from_shared(self.url.clone())?.connect().await?);
        }
        let begins = Instant::now() + Duration::from_secs_f64(self.warm_up);
        let ends = begins + Duration::from_secs_f64(self.seconds);
        let measure = match self.rate {
            None => self.closed_loop(&channels, begins, ends).await,
            Some(rate) => self.open_loop(&channels, rate, begins, ends).await,
        };
        println!("{}", measure.to_json(ends - begins));
        Ok(())
    }

    fn caller(&self, channels: &[Channel], number: usize) -> Caller {
        let channel = channels.get(number % channels.len()).expect("there is at least one connection");
        let client = IdentityServiceClient::new(channel.clone());
        let draw = Draw::new(self.seed.wrapping_mul(1_000_003).wrapping_add(number as u64), self.users);
        Caller { client, draw, rpc: self.rpc, batch: self.batch }
    }

    async fn closed_loop(&self, channels: &[Channel], begins: Instant, ends: Instant) -> Measure {
        let mut workers = JoinSet::new();
        for number in 0..self.in_flight {
            let mut caller = self.caller(channels, number);
            workers.spawn(async move {
                let mut measure = Measure::new();
                loop {
                    let began = Instant::now();
                    if began >= ends {
                        return measure;
                    }
                    let outcome = caller.call().await;
                    let now = Instant::now();
                    // Counted where it ends, or a slow call at either edge would count nowhere.
                    measure.note(&outcome, now - began, (begins..=ends).contains(&now));
                }
            });
        }
        total(workers).await
    }

    async fn open_loop(&self, channels: &[Channel], rate: u32, begins: Instant, ends: Instant) -> Measure {
        let interval = Duration::from_secs(1).div_f64(f64::from(rate));
        let mut calls = JoinSet::new();
        let (mut due, mut number) = (Instant::now(), 0);
        let mut all = Measure::new();
        while due < ends {
            while due <= Instant::now() && due < ends {
                let (mut caller, at) = (self.caller(channels, number), due);
                calls.spawn(async move {
                    let outcome = caller.call().await;
                    // From when it should have left: the wait for a slow client is the caller's wait too.
                    (outcome, at.elapsed(), at >= begins)
                });
                due += interval;
                number += 1;
            }
            while let Some(Ok((outcome, latency, is_measured))) = calls.try_join_next() {
                all.note(&outcome, latency, is_measured);
            }
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
        for (outcome, latency, is_measured) in calls.join_all().await {
            all.note(&outcome, latency, is_measured);
        }
        all
    }
}

async fn total(mut workers: JoinSet<Measure>) -> Measure {
    let mut all = Measure::new();
    while let Some(measure) = workers.join_next().await {
        all.add(&measure.expect("a worker does not panic"));
    }
    all
}

impl Caller {
    async fn call(&mut self) -> Outcome {
        let answered = match self.rpc {
            Rpc::Resolve | Rpc::Echo => self.resolve().await,
            Rpc::ResolveBatch => self.resolve_batch().await,
            Rpc::Login => self.log_in().await,
        };
        match answered {
            Ok(Some(items)) => Outcome::Right { items },
            Err(status) if status.code() == Code::ResourceExhausted => Outcome::Refused,
            Ok(None) | Err(_) => Outcome::Wrong,
        }
    }

    /// How many users the answer holds; nothing when it is not the right one.
    async fn resolve(&mut self) -> Result<Option<u64>, Status> {
        let auth_token = auth_token(self.draw.next()).to_string();
        let request = ResolveTokenRequest { auth_token: auth_token.clone() };
        let user = self.client.resolve_token(request).await?.into_inner().user;
        let is_right =
            user.is_some_and(|user| matches!(self.rpc, Rpc::Echo) || user.auth_token == auth_token);
        Ok(is_right.then_some(1))
    }

    async fn resolve_batch(&mut self) -> Result<Option<u64>, Status> {
        let auth_tokens: Vec<String> =
            (0..self.batch).map(|_| auth_token(self.draw.next()).to_string()).collect();
        let request = ResolveTokensRequest { auth_tokens: auth_tokens.clone() };
        let answer = self.client.resolve_tokens(request).await?.into_inner();
        // A token that was drawn twice is answered once.
        let is_right = answer.unknown_auth_tokens.is_empty()
            && answer.users.first().map(|user| &user.auth_token) == auth_tokens.first();
        Ok(is_right.then_some(answer.users.len() as u64))
    }

    async fn log_in(&mut self) -> Result<Option<u64>, Status> {
        let email = email(self.draw.next());
        let request = LoginRequest { email: email.clone(), password: PASSWORD.to_owned() };
        let user = self.client.login(request).await?.into_inner().user;
        Ok(user.is_some_and(|user| user.email == email).then_some(1))
    }
}
