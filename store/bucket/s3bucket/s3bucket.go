// Package s3bucket is a bucket at an object store that speaks S3 and honours
// conditional puts (If-None-Match: *).
//
// A Put sends the CRC-32C of the whole object along, and the payload's SHA-256
// in the signature; the storage stores the object only if they fit, so an
// object that was accepted is the one that was sent. Nothing is retried here:
// bucket.Retrying does that, and tells an own object from another's.
package s3bucket

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store/bucket"
)

// Bucket is a bucket, or a part of one below a prefix, at an object store.
type Bucket struct {
	client *s3.Client
	close  func()
	name   string
	prefix string // "" or ends with a slash
	url    string
}

var _ bucket.Bucket = (*Bucket)(nil)

// Open makes a client; it does not talk to the storage yet.
func Open(l Location, o Options) (*Bucket, error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	credentials, err := o.credentials()
	if err != nil {
		return nil, err
	}
	transport, closeIdle := o.transport()
	prefix := strings.Trim(l.Prefix, "/")
	if prefix != "" {
		prefix += "/"
	}
	client := s3.New(s3.Options{
		Region:                     l.region(),
		BaseEndpoint:               l.baseEndpoint(),
		UsePathStyle:               l.PathStyle,
		Credentials:                credentials,
		HTTPClient:                 transport,
		Retryer:                    aws.NopRetryer{},
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired, // Put gives its own
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired, // ranges have none
	})
	return &Bucket{client: client, close: closeIdle, name: l.Bucket, prefix: prefix, url: l.URL()}, nil
}

// URL is that of the Location, which holds no secrets.
func (b *Bucket) URL() string { return b.url }

// Close closes idle connections.
func (b *Bucket) Close() error {
	b.close()
	return nil
}

func (b *Bucket) full(key string) *string { return aws.String(b.prefix + key) }

// A call that makes no progress would hold its worker for as long as TCP keeps
// hoping, which is a quarter of an hour. So each gets a minute, and for its data
// the time that they take at 128 KiB a second.
const (
	callTime     = time.Minute
	bytesPerTime = 128 << 10
)

func timeFor(bytes int64) time.Duration {
	return callTime + time.Duration(bytes/bytesPerTime)*time.Second
}

// call runs one request with a time of its own and classifies its error.
func (b *Bucket) call(ctx context.Context, op, key string, bytes int64, request func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, timeFor(bytes))
	defer cancel()
	if err := request(limited); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return b.classify(op, key, err)
	}
	return nil
}

// Put is described at bucket.Bucket.
func (b *Bucket) Put(ctx context.Context, key string, parts [][]byte) error {
	if err := bucket.CheckKey(key); err != nil {
		return err
	}
	size, sum := bucket.Size(parts), checksum(parts)
	return b.call(ctx, "put", key, size, func(ctx context.Context) error {
		out, err := b.client.PutObject(ctx, &s3.PutObjectInput{
			Bucket:         &b.name,
			Key:            b.full(key),
			Body:           newBody(parts),
			ContentLength:  &size,
			ContentType:    aws.String("application/octet-stream"),
			IfNoneMatch:    aws.String("*"),
			ChecksumCRC32C: &sum,
		})
		if err != nil {
			return err
		}
		if got := aws.ToString(out.ChecksumCRC32C); got != "" && got != sum {
			return problem.New(problem.StoreDamaged, "The store %s has stored something else for %s than was sent: the checksum is %s instead of %s.", b.url, key, got, sum)
		}
		return nil
	})
}

func checksum(parts [][]byte) string {
	table := crc32.MakeTable(crc32.Castagnoli)
	var sum uint32
	for _, p := range parts {
		sum = crc32.Update(sum, table, p)
	}
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, sum))
}

// Get is described at bucket.Bucket.
func (b *Bucket) Get(ctx context.Context, key string, off int64, dst []byte) error {
	if err := bucket.CheckKey(key); err != nil {
		return err
	}
	if off < 0 {
		return fmt.Errorf("get %s: the offset %d is negative", key, off)
	}
	if len(dst) == 0 { // HTTP has no empty range
		o, err := b.Stat(ctx, key)
		if err == nil && off > o.Size {
			err = bucket.Short(b, key, o.Size, off, 0)
		}
		return err
	}
	err := b.call(ctx, "get", key, int64(len(dst)), func(ctx context.Context) error {
		return b.read(ctx, key, off, dst)
	})
	if isRange(err) { // off is at or behind the end
		o, err := b.Stat(ctx, key)
		if err != nil {
			return err
		}
		return bucket.Short(b, key, o.Size, off, len(dst))
	}
	return err
}

func (b *Bucket) read(ctx context.Context, key string, off int64, dst []byte) error {
	last := off + int64(len(dst)) - 1
	out, err := b.client.GetObject(ctx, &s3.GetObjectInput{
		Bucket: &b.name,
		Key:    b.full(key),
		Range:  aws.String(fmt.Sprintf("bytes=%d-%d", off, last)),
	})
	if err != nil {
		return err
	}
	defer out.Body.Close()
	first, end, size, ok := parseRange(aws.ToString(out.ContentRange))
	if !ok || first != off {
		return problem.New(problem.StoreContractMissing, "The storage at %s does not keep a promise that a store depends on: a range of an object can be read.", b.url).
			With("found", aws.ToString(out.ContentRange))
	}
	if end < last {
		return bucket.Short(b, key, size, off, len(dst))
	}
	if n, err := io.ReadFull(out.Body, dst); err != nil {
		// Not wrapped: it may be io.ErrUnexpectedEOF, which would say that the
		// object is short, where only the connection broke.
		return &cut{fmt.Sprintf("the answer broke off after %d of %d bytes: %v", n, len(dst), err)}
	}
	return nil
}

// parseRange reads "bytes 5-9/100".
func parseRange(header string) (first, last, size int64, ok bool) {
	rest, isBytes := strings.CutPrefix(header, "bytes ")
	span, total, hasSize := strings.Cut(rest, "/")
	from, to, isSpan := strings.Cut(span, "-")
	first, err1 := strconv.ParseInt(from, 10, 64)
	last, err2 := strconv.ParseInt(to, 10, 64)
	size, err3 := strconv.ParseInt(total, 10, 64)
	return first, last, size, isBytes && hasSize && isSpan && err1 == nil && err2 == nil && err3 == nil
}

// Stat is described at bucket.Bucket. The time has whole seconds.
func (b *Bucket) Stat(ctx context.Context, key string) (o bucket.Object, err error) {
	if err := bucket.CheckKey(key); err != nil {
		return bucket.Object{}, err
	}
	err = b.call(ctx, "stat", key, 0, func(ctx context.Context) error {
		out, err := b.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &b.name, Key: b.full(key)})
		if err != nil {
			return err
		}
		o = bucket.Object{Key: key, Size: aws.ToInt64(out.ContentLength), Stored: aws.ToTime(out.LastModified)}
		return nil
	})
	return o, err
}

// List is described at bucket.Bucket.
func (b *Bucket) List(ctx context.Context, prefix, after string) iter.Seq2[bucket.Object, error] {
	return func(yield func(bucket.Object, error) bool) {
		in := &s3.ListObjectsV2Input{Bucket: &b.name, Prefix: b.full(prefix)}
		if after != "" {
			in.StartAfter = b.full(after)
		}
		last := after
		for {
			page, err := b.page(ctx, prefix, in)
			if err != nil {
				yield(bucket.Object{}, err)
				return
			}
			for _, c := range page.Contents {
				key := strings.TrimPrefix(aws.ToString(c.Key), b.prefix)
				if key <= after || !strings.HasPrefix(key, prefix) || bucket.CheckKey(key) != nil {
					continue // not asked for, or not an object of a bucket
				}
				if key <= last {
					yield(bucket.Object{}, b.disorder(last, key))
					return
				}
				last = key
				if err := ctx.Err(); err != nil {
					yield(bucket.Object{}, err)
					return
				}
				if !yield(bucket.Object{Key: key, Size: aws.ToInt64(c.Size), Stored: aws.ToTime(c.LastModified)}, nil) {
					return
				}
			}
			if !aws.ToBool(page.IsTruncated) {
				return
			}
			in.ContinuationToken = page.NextContinuationToken
		}
	}
}

func (b *Bucket) page(ctx context.Context, prefix string, in *s3.ListObjectsV2Input) (page *s3.ListObjectsV2Output, err error) {
	err = b.call(ctx, "list", prefix, 0, func(ctx context.Context) error {
		page, err = b.client.ListObjectsV2(ctx, in)
		if err == nil && aws.ToBool(page.IsTruncated) && aws.ToString(page.NextContinuationToken) == "" {
			return problem.New(problem.StoreContractMissing, "The storage at %s does not keep a promise that a store depends on: a listing is complete.", b.url)
		}
		return err
	})
	return page, err
}

func (b *Bucket) disorder(last, key string) error {
	return problem.New(problem.StoreContractMissing, "The storage at %s does not keep a promise that a store depends on: a listing is in the order of keys; %s came after %s.", b.url, key, last)
}

// Delete is described at bucket.Bucket. In a bucket with versions the object is
// hidden, and goes when the bucket's own rules say so.
func (b *Bucket) Delete(ctx context.Context, key string) error {
	if err := bucket.CheckKey(key); err != nil {
		return err
	}
	err := b.call(ctx, "delete", key, 0, func(ctx context.Context) error {
		_, err := b.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &b.name, Key: b.full(key)})
		return err
	})
	if isNotFound(err) {
		return nil
	}
	return err
}
