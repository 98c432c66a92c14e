package s3bucket

import (
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store/bucket"
)

const (
	scheme        = "s3"
	defaultRegion = "us-east-1" // what storage without regions takes
)

// Location says where a bucket is. It is written as
//
//	s3://BUCKET/PREFIX?endpoint=https://HOST:PORT&region=NAME&path-style=true
type Location struct {
	Bucket    string
	Prefix    string // of all keys, without slashes at its ends; may be empty
	Endpoint  string // URL of the storage; empty: Amazon S3
	Region    string // empty: AWS_REGION, AWS_DEFAULT_REGION or us-east-1
	PathStyle bool   // the bucket's name goes into the path, not into the host name
}

// ParseURL reads a Location. With an endpoint, path style is the default, since
// few storages of one's own have a host name for each bucket.
func ParseURL(text string) (Location, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != scheme {
		// Without the cause, which repeats the text with what may be a secret.
		return Location{}, problem.New(problem.InvalidArgument, "%q is not a URL of the form s3://BUCKET/PREFIX.", redact(text))
	}
	if u.User != nil {
		return Location{}, problem.New(problem.InvalidArgument, "The URL of a store may not hold credentials.").
			Do("Give them in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or in the file ~/.aws/credentials.")
	}
	l := Location{Bucket: u.Host, Prefix: strings.Trim(u.Path, "/")}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Location{}, problem.New(problem.InvalidArgument, "The parameters of the URL of the bucket %s cannot be read.", l.Bucket)
	}
	pathStyle := ""
	for name := range query {
		switch name {
		case "endpoint":
			l.Endpoint = strings.TrimRight(query.Get(name), "/")
		case "region":
			l.Region = query.Get(name)
		case "path-style":
			pathStyle = query.Get(name)
		default:
			return Location{}, problem.New(problem.InvalidArgument, "The URL of a store has the parameter %q, which is not known.", name).
				Do("Use endpoint, region and path-style.")
		}
	}
	l.PathStyle = l.Endpoint != ""
	if pathStyle != "" {
		if l.PathStyle, err = strconv.ParseBool(pathStyle); err != nil {
			return Location{}, problem.New(problem.InvalidArgument, "The parameter path-style of the URL is %q; it must be true or false.", pathStyle)
		}
	}
	return l, l.check()
}

// redact drops what may be a secret before an "@".
func redact(text string) string {
	if at := strings.LastIndexByte(text, '@'); at >= 0 {
		return "…" + text[at:]
	}
	return text
}

func (l Location) check() error {
	if len(l.Bucket) < 3 || len(l.Bucket) > 63 || strings.Trim(l.Bucket, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") != "" {
		return problem.New(problem.InvalidArgument, "%q cannot be the name of a bucket: it needs 3 to 63 letters, digits, dots and hyphens.", l.Bucket)
	}
	if l.Prefix != "" {
		if err := bucket.CheckKey(l.Prefix); err != nil {
			return problem.Wrap(err, problem.InvalidArgument, "%q cannot be a prefix in a bucket.", l.Prefix)
		}
	}
	if l.Endpoint == "" {
		return nil
	}
	e, err := url.Parse(l.Endpoint)
	if err != nil || e.Scheme != "http" && e.Scheme != "https" || e.Host == "" || e.User != nil || e.RawQuery != "" {
		return problem.New(problem.InvalidArgument, "The endpoint of a store must be a URL of the form https://HOST:PORT.")
	}
	return nil
}

// URL writes the location; ParseURL gives the same one back.
func (l Location) URL() string {
	u := url.URL{Scheme: scheme, Host: l.Bucket}
	if l.Prefix != "" {
		u.Path = "/" + l.Prefix
	}
	var query []string
	if l.Endpoint != "" {
		// Not escaped more than needed: people read it.
		query = append(query, "endpoint="+strings.NewReplacer("&", "%26", "+", "%2B", "#", "%23", "%", "%25").Replace(l.Endpoint))
	}
	if l.Region != "" {
		query = append(query, "region="+url.QueryEscape(l.Region))
	}
	if l.PathStyle != (l.Endpoint != "") {
		query = append(query, "path-style="+strconv.FormatBool(l.PathStyle))
	}
	u.RawQuery = strings.Join(query, "&")
	return u.String()
}

func (l Location) region() string {
	for _, r := range []string{l.Region, os.Getenv("AWS_REGION"), os.Getenv("AWS_DEFAULT_REGION")} {
		if r != "" {
			return r
		}
	}
	return defaultRegion
}

func (l Location) baseEndpoint() *string {
	if l.Endpoint == "" {
		return nil
	}
	return &l.Endpoint
}
