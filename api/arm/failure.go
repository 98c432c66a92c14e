package arm

import (
	"net/http"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/resource"
)

// statuses are the HTTP statuses of codes that do not follow from their kind.
var statuses = map[problem.Code]int{
	problem.TokenInvalid: http.StatusUnauthorized, problem.CallerNotAllowed: http.StatusForbidden, problem.LinkedNotAllowed: http.StatusForbidden,
	problem.ResourceChanged: http.StatusPreconditionFailed, problem.ResourceExists: http.StatusConflict, problem.LocationConflict: http.StatusConflict,
	problem.PropertyFixed: http.StatusConflict, problem.AssignmentExists: http.StatusConflict, problem.GroupInUse: http.StatusConflict,
	problem.NotRegistered: http.StatusConflict, problem.TooManyRequests: http.StatusTooManyRequests, problem.MethodUnknown: http.StatusMethodNotAllowed,
	problem.OperationInterrupted: http.StatusServiceUnavailable,
}

// absent are the codes of what the path of a request names; other things that
// are not there are mistakes in its body.
var absent = map[problem.Code]bool{
	problem.ResourceNotFound: true, problem.GroupNotFound: true, problem.VaultNotFound: true, problem.PolicyNotFound: true, problem.InstanceNotFound: true,
	problem.RecoveryPointNotFound: true, problem.JobNotFound: true, problem.NamespaceUnknown: true, problem.TypeUnknown: true,
}

// words are the codes by which Azure says the same.
var words = map[problem.Code]string{
	problem.VaultNotFound: "ResourceNotFound", problem.PolicyNotFound: "UserErrorGenericResourceNotFound", problem.InstanceNotFound: "UserErrorGenericResourceNotFound",
	problem.RecoveryPointNotFound: "UserErrorGenericResourceNotFound", problem.JobNotFound: "UserErrorGenericResourceNotFound",
	problem.InternalError: "InternalServerError", problem.InvalidArgument: "BadRequest",
}

func wordOf(c problem.Code) string {
	if w := words[c]; w != "" {
		return w
	}
	return string(c)
}

func statusOf(p *problem.Error) int {
	if s := statuses[p.Code]; s != 0 {
		return s
	}
	switch p.Kind {
	case problem.Usage, problem.Refused:
		return http.StatusBadRequest
	case problem.NotFound:
		if absent[p.Code] {
			return http.StatusNotFound
		}
		return http.StatusBadRequest
	case problem.Busy:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// envelope is the form of an error.
type envelope struct {
	Error errorBody `json:"error"`
}

type errorBody struct {
	Code           string           `json:"code"`
	Message        string           `json:"message"`
	Target         *string          `json:"target"`
	Details        []errorBody      `json:"details"`
	AdditionalInfo []additionalInfo `json:"additionalInfo,omitempty"`
}

type additionalInfo struct {
	Type string     `json:"type"`
	Info userFacing `json:"info"`
}

// userFacing is an error as the data protection provider tells it.
type userFacing struct {
	Code              string            `json:"code"`
	Message           string            `json:"message"`
	Target            string            `json:"target"`
	RecommendedAction []string          `json:"recommendedAction"`
	Details           []userFacing      `json:"details"`
	IsRetryable       bool              `json:"isRetryable"`
	IsUserError       bool              `json:"isUserError"`
	InnerError        *struct{}         `json:"innerError"`
	Properties        map[string]string `json:"properties"`
}

func userFacingOf(f *resource.Failure, activity string) *userFacing {
	if f == nil {
		return nil
	}
	user := f.Kind == problem.Usage || f.Kind == problem.Refused || f.Kind == problem.NotFound
	return &userFacing{
		Code: wordOf(f.Code), Message: f.Message, RecommendedAction: f.RecommendedAction, IsRetryable: f.Retryable(), IsUserError: user,
		Properties: map[string]string{"ActivityId": activity},
	}
}

// errorOf writes an error down. Of an error that nobody classified only that
// there was one is told: its text is for the log.
func errorOf(f *resource.Failure, activity string, dataProtection bool) errorBody {
	b := errorBody{Code: wordOf(f.Code), Message: f.Message}
	if dataProtection {
		b.AdditionalInfo = []additionalInfo{{"UserFacingError", *userFacingOf(f, activity)}}
	}
	return b
}

// failure is the answer to a request that failed.
func failure(q *request, err error, h http.Header) reply {
	p := problem.From(err)
	out := reply{status: statusOf(p), header: map[string]string{"x-ms-error-code": wordOf(p.Code)}}
	if out.status == http.StatusUnauthorized {
		out.header["WWW-Authenticate"] = `Bearer authorization_uri="` + q.base() + `/common/oauth2/v2.0/authorize", error="invalid_token", error_description="The token is missing or not valid."`
	}
	if out.status == http.StatusServiceUnavailable && h.Get("Retry-After") == "" {
		out.header["Retry-After"] = "5"
	}
	out.body = envelope{errorOf(resource.FailureOf(p), q.who.Activity, namespace(q.URL.Path) == "microsoft.dataprotection")}
	return out
}
