package s3bucket

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store/bucket"
)

// cut is an answer whose data broke off.
type cut struct{ what string }

func (c *cut) Error() string { return c.what }

// answer is what the storage said: the status and the code of S3.
type answer struct {
	status int
	code   string
	after  time.Duration // Retry-After
}

func answerOf(err error) answer {
	var a answer
	var response *awshttp.ResponseError
	if errors.As(err, &response) {
		a.status = response.HTTPStatusCode()
		if response.Response != nil {
			a.after = retryAfter(response.Response.Header.Get("Retry-After"))
		}
	}
	var api smithy.APIError
	if errors.As(err, &api) {
		a.code = api.ErrorCode()
	}
	return a
}

// retryAfter reads the header: a number of seconds, or a date.
func retryAfter(header string) time.Duration {
	if seconds, err := strconv.Atoi(header); err == nil && seconds > 0 {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(header); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}

func isRange(err error) bool {
	a := answerOf(err)
	return a.status == http.StatusRequestedRangeNotSatisfiable || a.code == "InvalidRange"
}

func isNotFound(err error) bool { return errors.Is(err, bucket.ErrNotFound) }

// classify says what a failed request means.
func (b *Bucket) classify(op, key string, cause error) error {
	var done *problem.Error
	if errors.As(cause, &done) {
		return cause // it was classified where it arose
	}
	a := answerOf(cause)
	err := fmt.Errorf("%s %s: %w", op, key, cause)
	switch {
	case a.status == http.StatusPreconditionFailed && op == "put":
		return fmt.Errorf("put %s: %w", key, bucket.ErrExists)
	case a.code == "NoSuchBucket":
		return problem.Wrap(err, problem.StoreNotFound, "There is no bucket %s at %s.", b.name, b.url).
			Do("Check the name and the endpoint, or make the bucket first: diskvault makes stores in buckets, not buckets.")
	case a.status == http.StatusNotFound && op != "put" && op != "list":
		return bucket.NotFound(b, key)
	case a.status == 0:
		return b.noAnswer(err)
	case full(a):
		return problem.Wrap(err, problem.StoreFull, "The store %s has no room left.", b.url)
	case a.code == "RequestTimeTooSkewed":
		return problem.Wrap(err, problem.StorePermissionDenied, "The store %s refuses access because its clock and that of this machine differ too much.", b.url).
			Do("Set the clock of this machine, for example with an NTP client.")
	case throttled(a):
		return b.transient(&bucket.Transient{Err: err, After: a.after, Throttled: true})
	case passing(a):
		return b.transient(&bucket.Transient{Err: err, After: a.after})
	case a.status == http.StatusUnauthorized, a.status == http.StatusForbidden:
		return problem.Wrap(err, problem.StorePermissionDenied, "The store %s refuses access.", b.url)
	case a.status == http.StatusNotImplemented:
		return problem.Wrap(err, problem.StoreContractMissing, "The storage at %s does not keep a promise that a store depends on: it does not know the request %q.", b.url, op)
	case a.status == http.StatusMovedPermanently, a.status == http.StatusTemporaryRedirect, a.code == "AuthorizationHeaderMalformed", a.code == "IllegalLocationConstraintException":
		return problem.Wrap(err, problem.InvalidArgument, "The bucket %s is not in the region that the URL %s names.", b.name, b.url).
			Do("Add the region of the bucket to the URL: ?region=NAME.")
	}
	return problem.Wrap(err, problem.StoreFailed, "The store %s reported an error.", b.url)
}

func full(a answer) bool {
	return a.status == http.StatusInsufficientStorage || strings.Contains(a.code, "QuotaExceeded") || a.code == "XMinioStorageFull"
}

// throttled tells whether the storage gets too many requests. A 503 without
// one of these codes is a failure of its own.
func throttled(a answer) bool {
	switch a.code {
	case "SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests", "ServerBusy":
		return true
	}
	return a.status == http.StatusTooManyRequests
}

// passing tells whether the same request may succeed later. 409 is an answer to
// two conditional puts at once.
func passing(a answer) bool {
	switch a.status {
	case http.StatusConflict, http.StatusRequestTimeout, http.StatusTooManyRequests,
		http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	switch a.code {
	case "RequestTimeout", "SlowDown", "Throttling", "ThrottlingException", "InternalError",
		// What arrived is not what was sent; nothing was stored.
		"BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch":
		return true
	}
	return false
}

// noAnswer is a request that got no answer at all, or half of one.
func (b *Bucket) noAnswer(err error) error {
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var verify *tls.CertificateVerificationError
	if errors.As(err, &unknown) || errors.As(err, &host) || errors.As(err, &invalid) || errors.As(err, &verify) {
		return problem.Wrap(err, problem.StoreUnreachable, "The certificate of the store %s cannot be trusted.", b.url).
			Do("Check the address; if the certificate is from an authority of your own, name its file in SSL_CERT_FILE.")
	}
	var record tls.RecordHeaderError
	if errors.As(err, &record) {
		return problem.Wrap(err, problem.StoreUnreachable, "The store %s does not speak TLS.", b.url).
			Do("Write http:// instead of https:// in the endpoint, if it is meant to be without TLS.")
	}
	var expired *credentialsError
	if errors.As(err, &expired) {
		return problem.Wrap(err, problem.StorePermissionDenied, "There are no credentials for the store %s.", b.url)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no answer in time: %w", err)
	}
	return b.transient(&bucket.Transient{Err: err})
}

func (b *Bucket) transient(err *bucket.Transient) error {
	return problem.Wrap(err, problem.StoreUnreachable, "The store %s does not answer as it should.", b.url)
}
