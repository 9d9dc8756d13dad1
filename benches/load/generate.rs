//! Generates load, in a closed loop (each worker waits for its response) or in an open loop (calls are sent
//! at a fixed rate, and the latency includes the time that a call waits before it is sent).

#![expect(
    clippy::disallowed_methods,
    clippy::doc_markdown,
    reason = "the generator measures real time; clap shows the comments as help"
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
    measure::{CallOutcome, Measurement},
    tokens::{PASSWORD, RandomUsers, auth_token, email},
};

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Rpc {
    /// ResolveToken; checks the user in the response
    Resolve,
    /// ResolveToken against `echo`, which always returns the same user
    Echo,
    /// ResolveTokens with `--batch` tokens
    ResolveBatch,
    /// Login with the right password
    Login,
}

#[derive(Debug, Args)]
pub struct Run {
    /// URL of the service
    #[arg(long, default_value = "http://127.0.0.1:50051")]
    url: String,
    /// Method to call
    #[arg(long, value_enum, default_value = "resolve")]
    rpc: Rpc,
    /// Number of users that `seed` created
    #[arg(long, default_value_t = 100_000)]
    users: u64,
    /// Number of connections
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Number of calls in flight over all connections (closed loop)
    #[arg(long, default_value_t = 128)]
    in_flight: usize,
    /// Calls per second; selects the open loop
    #[arg(long)]
    rate: Option<u32>,
    /// Number of tokens of one ResolveTokens
    #[arg(long, default_value_t = 100)]
    batch: usize,
    /// Seconds of load before the measurement
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// Seconds of the measurement
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Seed of the random choice of users
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// A client that calls the service for random users.
struct Caller {
    client: IdentityServiceClient<Channel>,
    users: RandomUsers,
    rpc: Rpc,
    batch: usize,
}

impl Run {
    pub async fn run(self) -> Result<(), Failure> {
        let mut channels = Vec::new();
        for _ in 0..self.connections {
            channels.push(Endpoint::from_shared(self.url.clone())?.connect().await?);
        }
        let start = Instant::now() + Duration::from_secs_f64(self.warm_up);
        let end = start + Duration::from_secs_f64(self.seconds);
        let measurement = match self.rate {
            None => self.closed_loop(&channels, start, end).await,
            Some(rate) => self.open_loop(&channels, rate, start, end).await,
        };
        println!("{}", measurement.to_json(end - start));
        Ok(())
    }

    fn caller(&self, channels: &[Channel], number: usize) -> Caller {
        let channel = channels.get(number % channels.len()).expect("there is at least one connection");
        let client = IdentityServiceClient::new(channel.clone());
        let seed = self.seed.wrapping_mul(1_000_003).wrapping_add(number as u64);
        Caller { client, users: RandomUsers::new(seed, self.users), rpc: self.rpc, batch: self.batch }
    }

    async fn closed_loop(&self, channels: &[Channel], start: Instant, end: Instant) -> Measurement {
        let mut workers = JoinSet::new();
        for number in 0..self.in_flight {
            let mut caller = self.caller(channels, number);
            workers.spawn(async move {
                let mut measurement = Measurement::new();
                loop {
                    let sent = Instant::now();
                    if sent >= end {
                        return measurement;
                    }
                    let outcome = caller.call().await;
                    let now = Instant::now();
                    // A call counts if it ends within the measurement. Its start does not matter; otherwise
                    // slow calls at both edges would not be counted.
                    measurement.record(&outcome, now - sent, (start..=end).contains(&now));
                }
            });
        }
        total(workers).await
    }

    async fn open_loop(&self, channels: &[Channel], rate: u32, start: Instant, end: Instant) -> Measurement {
        let interval = Duration::from_secs(1).div_f64(f64::from(rate));
        let mut calls = JoinSet::new();
        let (mut due, mut number) = (Instant::now(), 0);
        let mut all = Measurement::new();
        while due < end {
            while due <= Instant::now() && due < end {
                let (mut caller, at) = (self.caller(channels, number), due);
                calls.spawn(async move {
                    let outcome = caller.call().await;
                    // The latency begins when the call was due, so that it includes delays of a slow client.
                    (outcome, at.elapsed(), at >= start)
                });
                due += interval;
                number += 1;
            }
            while let Some(Ok((outcome, latency, is_measured))) = calls.try_join_next() {
                all.record(&outcome, latency, is_measured);
            }
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
        for (outcome, latency, is_measured) in calls.join_all().await {
            all.record(&outcome, latency, is_measured);
        }
        all
    }
}

async fn total(mut workers: JoinSet<Measurement>) -> Measurement {
    let mut all = Measurement::new();
    while let Some(measurement) = workers.join_next().await {
        all.add(&measurement.expect("a worker does not panic"));
    }
    all
}

impl Caller {
    async fn call(&mut self) -> CallOutcome {
        let result = match self.rpc {
            Rpc::Resolve | Rpc::Echo => self.resolve().await,
            Rpc::ResolveBatch => self.resolve_batch().await,
            Rpc::Login => self.log_in().await,
        };
        match result {
            Ok(Some(items)) => CallOutcome::Right { items },
            Err(status) if status.code() == Code::ResourceExhausted => CallOutcome::Refused,
            Ok(None) | Err(_) => CallOutcome::Wrong,
        }
    }

    /// Returns the number of users in the response; `None` if the response is wrong.
    async fn resolve(&mut self) -> Result<Option<u64>, Status> {
        let auth_token = auth_token(self.users.next()).to_string();
        let request = ResolveTokenRequest { auth_token: auth_token.clone() };
        let user = self.client.resolve_token(request).await?.into_inner().user;
        let is_right =
            user.is_some_and(|user| matches!(self.rpc, Rpc::Echo) || user.auth_token == auth_token);
        Ok(is_right.then_some(1))
    }

    async fn resolve_batch(&mut self) -> Result<Option<u64>, Status> {
        let auth_tokens: Vec<String> =
            (0..self.batch).map(|_| auth_token(self.users.next()).to_string()).collect();
        let request = ResolveTokensRequest { auth_tokens: auth_tokens.clone() };
        let response = self.client.resolve_tokens(request).await?.into_inner();
        // The number of users may be smaller than the batch: a token that was chosen twice is returned once.
        let is_right = response.unknown_auth_tokens.is_empty()
            && response.users.first().map(|user| &user.auth_token) == auth_tokens.first();
        Ok(is_right.then_some(response.users.len() as u64))
    }

    async fn log_in(&mut self) -> Result<Option<u64>, Status> {
        let email = email(self.users.next());
        let request = LoginRequest { email: email.clone(), password: PASSWORD.to_owned() };
        let user = self.client.login(request).await?.into_inner().user;
        Ok(user.is_some_and(|user| user.email == email).then_some(1))
    }
}
