//! The random calls, and what each accepted call changes in the model.

use kairos_identity::proto::{
    ChangePasswordRequest, ConfirmEmailChangeRequest, DeleteAccountRequest, DisableUserRequest,
    EnableUserRequest, LoginRequest, LogoutRequest, RefreshSessionRequest, RegisterRequest,
    RequestEmailChangeRequest, RequestPasswordResetRequest, ResendVerificationEmailRequest,
    ResetPasswordRequest, RevokeAllSessionsRequest, RevokeUserSessionsRequest, SessionTokens,
    SetVerifiedRequest, StartPasswordResetRequest, UnlockUserRequest, UpdateAccountRequest,
    VerifyEmailRequest,
};
use tonic::{Code, Request, Status};

use super::{Changed, Group};

fn acting<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    // A value that is not valid in a header is not sent.
    if let Ok(credentials) = format!("Bearer {token}").parse() {
        request.metadata_mut().insert("authorization", credentials);
    }
    request
}

/// Returns the response if the call succeeded. A refused call is fine; an internal or unknown error is not.
fn accepted<T>(answer: Result<T, Status>) -> Option<T> {
    match answer {
        Ok(answer) => Some(answer),
        Err(refusal) => {
            assert!(!matches!(refusal.code(), Code::Internal | Code::Unknown), "{refusal:?}");
            None
        }
    }
}

impl Group {
    /// Makes one random call and records its result in the model. Returns the password change, if the call
    /// succeeded in one.
    pub(super) async fn one_call(&mut self) -> Changed {
        match self.below(18) {
            0..=3 => self.log_in().await,
            4 | 5 => return self.change_password().await,
            6 | 7 => return self.reset_password().await,
            8 => self.request_reset().await,
            9 => self.open_other_links().await,
            10 => self.request_other_links().await,
            11 => self.refresh().await,
            12 => self.revoke_sessions().await,
            13 => self.delete_account().await,
            14 => self.register_again().await,
            15 => self.rename().await,
            _ => self.call_admin().await,
        }
        None
    }

    async fn log_in(&mut self) {
        let of = self.random_user();
        let password = self.random_password(of);
        let is_right = password == self.users[of].password;
        let login = LoginRequest { email: self.users[of].email.clone(), password };
        if let Some(answer) = accepted(self.identity.login(login).await) {
            assert!(is_right, "a wrong password logs in");
            self.record_tokens(of, answer.into_inner().tokens.unwrap());
        }
    }

    fn record_tokens(&mut self, of: usize, tokens: SessionTokens) {
        self.users[of].access.push(tokens.access_token);
        self.users[of].refresh.push(tokens.refresh_token);
    }

    async fn change_password(&mut self) -> Changed {
        let token = self.random_token(|user| &user.access);
        let owner = self.owner_of_access(&token);
        let current_password = self.random_password(owner.unwrap_or_else(|| self.random_user()));
        let is_right = owner.is_some_and(|owner| self.users[owner].password == current_password);
        let new_password = self.next("Lantern-quartz");
        let change = ChangePasswordRequest { current_password, new_password: new_password.clone() };
        accepted(self.accounts.change_password(acting(&token, change)).await)?;
        assert!(is_right, "a password is changed without the current one");
        let owner = owner?;
        // A changed password voids the reset link.
        self.users[owner].live_reset_link = None;
        Some((owner, new_password))
    }

    async fn reset_password(&mut self) -> Changed {
        let token = self.random_token(|user| &user.reset_links);
        let of = self.users.iter().position(|user| user.live_reset_link.as_ref() == Some(&token));
        let new_password = self.next("Lantern-quartz");
        let reset = ResetPasswordRequest { token, new_password: new_password.clone() };
        accepted(self.accounts.reset_password(reset).await)?;
        let of = of.expect("a password is reset without the latest mailed link");
        self.users[of].live_reset_link = None;
        Some((of, new_password))
    }

    async fn request_reset(&mut self) {
        let of = self.random_user();
        let email = self.users[of].email.clone();
        let request = RequestPasswordResetRequest { email, return_mail_token: true };
        if let Some(answer) = accepted(self.accounts.request_password_reset(request).await) {
            let link = answer.into_inner().mail_token;
            if !link.is_empty() {
                self.users[of].reset_links.push(link.clone());
                self.users[of].live_reset_link = Some(link);
            }
        }
    }

    async fn open_other_links(&mut self) {
        if self.below(2) == 0 {
            let token = self.random_token(|user| &user.verify_links);
            accepted(self.identity.verify_email(VerifyEmailRequest { token }).await);
            return;
        }
        let token = self.random_token(|user| &user.change_links);
        let of = self.users.iter().position(|user| user.change_links.contains(&token));
        let confirm = ConfirmEmailChangeRequest { token };
        if let Some(answer) = accepted(self.accounts.confirm_email_change(confirm).await) {
            let of = of.expect("an email is changed without its link");
            let user = answer.into_inner().user.unwrap();
            assert_eq!(user.auth_token, self.users[of].auth_token);
            self.users[of].email = user.email;
            self.users[of].live_reset_link = None;
        }
    }

    async fn request_other_links(&mut self) {
        let of = self.random_user();
        if self.below(2) == 0 {
            let email = self.users[of].email.clone();
            let request = ResendVerificationEmailRequest { email, return_mail_token: true };
            if let Some(answer) = accepted(self.identity.resend_verification_email(request).await) {
                self.users[of].verify_links.push(answer.into_inner().mail_token);
            }
            return;
        }
        let token = self.random_token(|user| &user.access);
        let owner = self.owner_of_access(&token);
        let current_password = self.random_password(owner.unwrap_or(of));
        let is_right = owner.is_some_and(|owner| self.users[owner].password == current_password);
        let new_email = format!("{}@example.com", self.next("mail"));
        let request = RequestEmailChangeRequest { current_password, new_email, return_mail_token: true };
        if let Some(answer) = accepted(self.accounts.request_email_change(acting(&token, request)).await) {
            assert!(is_right, "an email change is requested without the password");
            self.users[owner.unwrap()].change_links.push(answer.into_inner().mail_token);
        }
    }

    async fn refresh(&mut self) {
        let refresh_token = self.random_token(|user| &user.refresh);
        let of = self.users.iter().position(|user| user.refresh.contains(&refresh_token));
        let refresh = RefreshSessionRequest { refresh_token };
        if let Some(answer) = accepted(self.sessions.refresh_session(refresh).await) {
            self.record_tokens(
                of.expect("a session is refreshed without its token"),
                answer.into_inner().tokens.unwrap(),
            );
        }
    }

    async fn revoke_sessions(&mut self) {
        if self.below(2) == 0 {
            let refresh_token = self.random_token(|user| &user.refresh);
            accepted(self.sessions.logout(LogoutRequest { refresh_token }).await);
        } else {
            let token = self.random_token(|user| &user.access);
            let keep_current = self.below(2) == 0;
            let revoke = acting(&token, RevokeAllSessionsRequest { keep_current });
            accepted(self.sessions.revoke_all_sessions(revoke).await);
        }
    }

    async fn delete_account(&mut self) {
        let token = self.random_token(|user| &user.access);
        let owner = self.owner_of_access(&token);
        let current_password = self.random_password(owner.unwrap_or(0));
        let is_right = owner.is_some_and(|owner| self.users[owner].password == current_password);
        let request = acting(&token, DeleteAccountRequest { current_password });
        if accepted(self.accounts.delete_account(request).await).is_some() {
            assert!(is_right, "an account is deleted without its password");
            self.users[owner.unwrap()] = self.new_user().await;
        }
    }

    async fn register_again(&mut self) {
        let email = self.users[self.random_user()].email.to_uppercase();
        let register = RegisterRequest {
            username: self.next("name"),
            email,
            password: self.next("Lantern-quartz"),
            request_id: String::new(),
            return_mail_token: true,
        };
        assert!(accepted(self.identity.register(register).await).is_none(), "an email is registered twice");
    }

    async fn rename(&mut self) {
        let token = self.random_token(|user| &user.access);
        let rename = UpdateAccountRequest { username: self.next("name"), update_mask: None };
        accepted(self.accounts.update_account(acting(&token, rename)).await);
    }

    async fn call_admin(&mut self) {
        let of = self.random_user();
        let auth_token = self.users[of].auth_token.clone();
        match self.below(6) {
            0 => {
                accepted(
                    self.admin.disable_user(DisableUserRequest { auth_token: auth_token.clone() }).await,
                );
                self.users[of].live_reset_link = None;
                if self.below(2) == 0 {
                    accepted(self.admin.enable_user(EnableUserRequest { auth_token }).await);
                }
            }
            1 => drop(accepted(self.admin.enable_user(EnableUserRequest { auth_token }).await)),
            2 => {
                let is_verified = Some(self.below(2) == 0);
                accepted(self.admin.set_verified(SetVerifiedRequest { auth_token, is_verified }).await);
            }
            3 => drop(accepted(self.admin.unlock_user(UnlockUserRequest { auth_token }).await)),
            4 => {
                accepted(self.admin.revoke_user_sessions(RevokeUserSessionsRequest { auth_token }).await);
            }
            _ => {
                let start = StartPasswordResetRequest { auth_token };
                // The new link, which this test does not see, replaces the other links.
                if accepted(self.admin.start_password_reset(start).await).is_some() {
                    self.users[of].live_reset_link = None;
                }
            }
        }
    }
}
