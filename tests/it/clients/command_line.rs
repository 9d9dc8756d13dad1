//! The story of a user with command-line tools: curl, buf and grpcurl. Each call is one process.

use std::process::{Command, Output};

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde_json::{Value, json};

use super::scene::{STORY, Scene, Story, new_users};
use crate::support::{
    mail::verification_token,
    people::{NEW_PASSWORD, PASSWORD, address},
    program::{stderr, stdout},
    tools::tool,
};

/// curl leaves the padding out, grpcurl does not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The address of the user, as the BFF reports it.
const CLIENT_IP: &str = "192.0.2.1";

/// A tool that calls the API. None of them needs the right to call reflection.
#[derive(Debug, Clone, Copy)]
pub enum Tool {
    /// JSON over HTTP/1.1.
    Curl,
    /// Connect over HTTP/1.1, the default of `buf curl`, with the `.proto` files.
    Buf,
    /// gRPC, with compiled descriptors: grpcurl 1.8 cannot read the `.proto` files.
    Grpcurl,
}

impl Tool {
    const fn name(self) -> &'static str {
        match self {
            Self::Curl => "curl",
            Self::Buf => "buf",
            Self::Grpcurl => "grpcurl",
        }
    }

    /// Plays the story. The service, or a proxy in front of it, is at `url`.
    pub async fn story(self, scene: &Scene, url: &str) -> Story {
        let name = format!("{}{}", new_users(), self.name());
        let email = address(&name);
        let call = |method: &str, body: Value| self.call(scene, url, method, &body, None);
        let login = json!({"email": email, "password": PASSWORD});

        let registration = json!({"username": name, "email": email, "password": PASSWORD});
        let auth_token = text(&done(&call("IdentityService/Register", registration))["user"]["authToken"]);
        assert_refused(&call("IdentityService/Login", login.clone()), "EMAIL_NOT_VERIFIED");
        let link = verification_token(&scene.server, &email).await;
        let verified = done(&call("IdentityService/VerifyEmail", json!({"token": link})));
        assert_eq!(verified["user"]["isVerified"], true);

        let first = done(&call("IdentityService/Login", login))["tokens"].clone();
        let refresh = json!({"refreshToken": first["refreshToken"]});
        let tokens = done(&call("SessionService/RefreshSession", refresh))["tokens"].clone();

        let access_token = text(&tokens["accessToken"]);
        let act = |method: &str, body: Value| self.call(scene, url, method, &body, Some(&access_token));
        assert_refused(&call("SessionService/ListSessions", json!({})), "INVALID_ACCESS_TOKEN");
        let passwords = json!({"currentPassword": PASSWORD, "newPassword": NEW_PASSWORD});
        done(&act("AccountService/ChangePassword", passwords));
        let session = done(&act("SessionService/ListSessions", json!({})))["sessions"][0].clone();
        assert_eq!((&session["isCurrent"], &session["clientIp"]), (&true.into(), &CLIENT_IP.into()));

        done(&act("AccountService/DeleteAccount", json!({"currentPassword": NEW_PASSWORD})));
        let resolve = json!({"authToken": auth_token});
        assert_refused(&call("IdentityService/ResolveToken", resolve), "USER_NOT_FOUND");

        let mut secrets =
            vec![scene.caller_token.clone(), PASSWORD.to_owned(), NEW_PASSWORD.to_owned(), link];
        for tokens in [first, tokens] {
            secrets.extend([text(&tokens["accessToken"]), text(&tokens["refreshToken"])]);
        }
        Story { client: self.name().to_owned(), steps: STORY.map(str::to_owned).to_vec(), secrets }
    }

    /// Calls a method as the BFF, with the access token of the user if the call is for a user.
    pub fn call(
        self,
        scene: &Scene,
        url: &str,
        method: &str,
        body: &Value,
        access_token: Option<&str>,
    ) -> Output {
        let bearer = access_token.map(|token| format!("authorization: Bearer {token}"));
        let client = format!("kairos-client-ip: {CLIENT_IP}");
        let headers: Vec<String> = [client].into_iter().chain(bearer).collect();
        let (caller, body) = (format!("kairos-caller-token: {}", scene.caller_token), body.to_string());
        let with_headers = |command: &mut Command| {
            command.args(headers.iter().chain([&caller]).flat_map(|header| ["-H", header]));
        };
        match self {
            Self::Curl => {
                let mut curl = Command::new("curl");
                curl.args([
                    "--silent",
                    "--show-error",
                    "--fail-with-body",
                    "--max-time",
                    "30",
                    "--noproxy",
                    "*",
                ]);
                if url.starts_with("https:") {
                    curl.arg("--cacert").arg(scene.certificate().certificate());
                }
                with_headers(&mut curl);
                curl.args(["-H", "content-type: application/json", "-d", &body]);
                curl.arg(format!("{url}/kairos.identity.v1.{method}")).output().expect("curl is installed")
            }
            Self::Buf => scene.buf_curl(url, &[], method, &body, &headers),
            Self::Grpcurl => {
                let mut grpcurl = Command::new(tool("grpcurl"));
                let address = url.split_once("//").unwrap().1;
                grpcurl.args(["-plaintext", "-format-error", "-protoset"]).arg(scene.descriptors());
                with_headers(&mut grpcurl);
                grpcurl
                    .args(["-d", &body, address, &format!("kairos.identity.v1.{method}")])
                    .output()
                    .unwrap()
            }
        }
    }
}

/// Returns the response of a call that must succeed.
#[track_caller]
fn done(output: &Output) -> Value {
    assert!(output.status.success(), "{}{}", stdout(output), stderr(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Asserts that a call was refused with this reason.
#[track_caller]
fn assert_refused(output: &Output, reason: &str) {
    let printed = format!("{}{}", stdout(output), stderr(output));
    assert!(!output.status.success(), "{printed}");
    // The tools print an `ErrorInfo` in base64, and some of them also as JSON.
    let is_in =
        |word: &str| BASE64.decode(word).is_ok_and(|info| String::from_utf8_lossy(&info).contains(reason));
    assert!(printed.split('"').any(is_in), "{reason}: {printed}");
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}
