package s3bucket

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/diskvault/diskvault/base/problem"
)

// lookAgain is when the credentials file is read again.
const lookAgain = 5 * time.Minute

// credentialsError is that no credentials could be found for a request.
type credentialsError struct{ err error }

func (e *credentialsError) Error() string { return e.err.Error() }

func (e *credentialsError) Unwrap() error { return e.err }

// findCredentials looks at the environment, then at the credentials file. A
// file is read again from time to time, so that a tool that renews short-lived
// credentials can do so under a long run.
func findCredentials() (aws.CredentialsProvider, error) {
	if id := os.Getenv("AWS_ACCESS_KEY_ID"); id != "" {
		secret := os.Getenv("AWS_SECRET_ACCESS_KEY")
		if secret == "" {
			return nil, problem.New(problem.InvalidArgument, "AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not.").
				Do("Set both, or neither.")
		}
		return credentials.NewStaticCredentialsProvider(id, secret, os.Getenv("AWS_SESSION_TOKEN")), nil
	}
	f := credentialsFile{path: os.Getenv("AWS_SHARED_CREDENTIALS_FILE"), profile: os.Getenv("AWS_PROFILE")}
	if f.profile == "" {
		f.profile = "default"
	}
	if f.path == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil, missingCredentials(err)
		}
		f.path = filepath.Join(home, ".aws", "credentials")
	}
	if _, err := f.Retrieve(context.Background()); err != nil {
		return nil, missingCredentials(err)
	}
	return aws.NewCredentialsCache(f), nil
}

func missingCredentials(err error) error {
	return problem.Wrap(err, problem.StorePermissionDenied, "There are no credentials for object storage.").
		Do("Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write them to ~/.aws/credentials.")
}

// credentialsFile gives the credentials of one profile of a file.
type credentialsFile struct{ path, profile string }

// Retrieve is aws.CredentialsProvider.
func (f credentialsFile) Retrieve(context.Context) (aws.Credentials, error) {
	file, err := os.Open(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return aws.Credentials{}, &credentialsError{fmt.Errorf("AWS_ACCESS_KEY_ID is not set, and there is no file %s", f.path)}
	}
	if err != nil {
		return aws.Credentials{}, &credentialsError{err}
	}
	defer file.Close()
	values, err := readProfile(file, f.profile)
	if err != nil {
		return aws.Credentials{}, &credentialsError{err}
	}
	c := aws.Credentials{
		AccessKeyID:     values["aws_access_key_id"],
		SecretAccessKey: values["aws_secret_access_key"],
		SessionToken:    values["aws_session_token"],
		Source:          f.path,
		CanExpire:       true,
		Expires:         time.Now().Add(lookAgain),
	}
	if c.AccessKeyID == "" || c.SecretAccessKey == "" {
		return aws.Credentials{}, &credentialsError{fmt.Errorf("the profile %s in %s has no aws_access_key_id and aws_secret_access_key", f.profile, f.path)}
	}
	return c, nil
}

// readProfile reads the values of one section of an INI file.
func readProfile(r io.Reader, profile string) (map[string]string, error) {
	values := map[string]string{}
	inside := false
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		if line[0] == '[' {
			inside = strings.TrimSpace(strings.Trim(line, "[]")) == profile
			continue
		}
		if name, value, ok := strings.Cut(line, "="); ok && inside {
			values[strings.ToLower(strings.TrimSpace(name))] = strings.TrimSpace(value)
		}
	}
	return values, lines.Err()
}
