// The story of a user with the client of grpc-go. It is compiled with the code that protoc-gen-go and
// protoc-gen-go-grpc generate. The environment variables and the output are those of story.mjs; its argument is
// the name of the client.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"mime"
	"mime/multipart"
	"net/mail"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	identity "kairos/kairos/identity/v1"
)

const (
	clientIP    = "203.0.113.1"
	password    = "plum-Voyage-84-kettle"
	newPassword = "quartz-Lantern-57-meadow"
)

var (
	callerToken = os.Getenv("KAIROS_CALLER_TOKEN")
	requestID   = regexp.MustCompile(`^[0-9a-f-]{36}$`)
	link        = regexp.MustCompile(`/verify\?token=([\w-]{43})\s`)
)

func must(err error) {
	if err != nil {
		log.Panic(err)
	}
}

func mustHold(holds bool, what interface{}) {
	if !holds {
		log.Panic(what)
	}
}

// mustBeRefused checks the code and the reason of an error, and that the call has an identifier.
func mustBeRefused(err error, headers metadata.MD, code, reason string) {
	refusal := status.Convert(err)
	mustHold(refusal.Code().String() == code, err)
	for _, detail := range refusal.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			mustHold(info.Reason == reason, info)
			ids := headers.Get("kairos-request-id")
			mustHold(len(ids) == 1 && requestID.MatchString(ids[0]), headers)
			return
		}
	}
	log.Panicf("%v has no reason", err)
}

// mailedToken waits for the mail to an address, and returns the token in its link.
func mailedToken(address string) string {
	for until := time.Now().Add(10 * time.Second); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		files, err := filepath.Glob(filepath.Join(os.Getenv("KAIROS_MAIL_FOLDER"), "*.eml"))
		must(err)
		for _, name := range files {
			if token := tokenOfMail(name, address); token != "" {
				return token
			}
		}
	}
	log.Panicf("no mail to %s arrived", address)
	return ""
}

func tokenOfMail(name, address string) string {
	file, err := os.Open(name)
	must(err)
	defer file.Close()
	message, err := mail.ReadMessage(file)
	must(err)
	if message.Header.Get("To") != address {
		return ""
	}
	_, parameters, err := mime.ParseMediaType(message.Header.Get("Content-Type"))
	must(err)
	// NextPart decodes quoted-printable.
	part, err := multipart.NewReader(message.Body, parameters["boundary"]).NextPart()
	must(err)
	text, err := io.ReadAll(part)
	must(err)
	found := link.FindSubmatch(text)
	mustHold(found != nil, string(text))
	return string(found[1])
}

func main() {
	target := strings.TrimPrefix(os.Getenv("KAIROS_URL"), "http://")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	byCaller := metadata.AppendToOutgoingContext(ctx, "kairos-caller-token", callerToken, "kairos-client-ip", clientIP)
	channel, err := grpc.Dial(target, grpc.WithInsecure())
	must(err)
	defer channel.Close()
	users := identity.NewIdentityServiceClient(channel)
	sessions := identity.NewSessionServiceClient(channel)
	accounts := identity.NewAccountServiceClient(channel)
	username := os.Getenv("KAIROS_USERS") + "go"
	address := username + "@example.com"
	steps := []string{}

	registered, err := users.Register(byCaller,
		&identity.RegisterRequest{Username: username, Email: address, Password: password})
	must(err)
	mustHold(!registered.User.IsVerified, registered)
	steps = append(steps, "register")

	var headers, trailers metadata.MD
	login := func(ctx context.Context, password string) (*identity.LoginResponse, error) {
		request := &identity.LoginRequest{Email: address, Password: password}
		return users.Login(ctx, request, grpc.Header(&headers), grpc.Trailer(&trailers))
	}
	refused := func(err error, code, reason string) {
		mustBeRefused(err, metadata.Join(headers, trailers), code, reason)
	}
	_, err = login(ctx, password)
	refused(err, "Unauthenticated", "CALLER_UNKNOWN")
	_, err = login(byCaller, "")
	refused(err, "InvalidArgument", "INVALID_FIELDS")
	_, err = login(byCaller, "wrong-password")
	refused(err, "Unauthenticated", "INVALID_CREDENTIALS")
	_, err = login(byCaller, password)
	refused(err, "PermissionDenied", "EMAIL_NOT_VERIFIED")
	token := mailedToken(address)
	verified, err := users.VerifyEmail(byCaller, &identity.VerifyEmailRequest{Token: token})
	must(err)
	mustHold(verified.User.IsVerified, verified)
	steps = append(steps, "verify")

	first, err := login(byCaller, password)
	must(err)
	steps = append(steps, "log in")

	refreshed, err := sessions.RefreshSession(byCaller,
		&identity.RefreshSessionRequest{RefreshToken: first.Tokens.RefreshToken})
	must(err)
	steps = append(steps, "refresh")

	byUser := metadata.AppendToOutgoingContext(byCaller, "authorization", "Bearer "+refreshed.Tokens.AccessToken)
	listRequest := &identity.ListSessionsRequest{}
	_, err = sessions.ListSessions(byCaller, listRequest, grpc.Header(&headers), grpc.Trailer(&trailers))
	refused(err, "Unauthenticated", "INVALID_ACCESS_TOKEN")
	_, err = accounts.ChangePassword(byUser,
		&identity.ChangePasswordRequest{CurrentPassword: password, NewPassword: newPassword})
	must(err)
	steps = append(steps, "change the password")

	listed, err := sessions.ListSessions(byUser, listRequest)
	must(err)
	mustHold(len(listed.Sessions) == 1, listed)
	session := listed.Sessions[0]
	mustHold(session.IsCurrent && session.Caller == "bff" && session.ClientIp == clientIP, session)
	steps = append(steps, "list the sessions")

	byToken := &identity.ResolveTokenRequest{AuthToken: registered.User.AuthToken}
	resolved, err := users.ResolveToken(byCaller, byToken)
	must(err)
	mustHold(resolved.User.Email == address, resolved)
	_, err = accounts.DeleteAccount(byUser, &identity.DeleteAccountRequest{CurrentPassword: newPassword})
	must(err)
	_, err = users.ResolveToken(byCaller, byToken, grpc.Header(&headers), grpc.Trailer(&trailers))
	refused(err, "NotFound", "USER_NOT_FOUND")
	steps = append(steps, "delete the account")

	secrets := []string{callerToken, password, newPassword, token}
	for _, tokens := range []*identity.SessionTokens{first.Tokens, refreshed.Tokens} {
		secrets = append(secrets, tokens.AccessToken, tokens.RefreshToken)
	}
	story := map[string]interface{}{"client": os.Args[1], "steps": steps, "secrets": secrets}
	line, err := json.Marshal(story)
	must(err)
	fmt.Println(string(line))
}
