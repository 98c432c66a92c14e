package resource

// Notice is something that a person should know though nothing failed.
type Notice struct {
	Name              string `json:"notice"` // stable, for scripts
	Message           string `json:"message"`
	RecommendedAction string `json:"recommendedAction,omitempty"`
	Secret            string `json:"secret,omitempty"` // a key that is shown this once
}
