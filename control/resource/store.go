package resource

import "time"

// Store is a store that this data folder knows.
type Store struct {
	ID      string    `json:"id"`
	Realm   string    `json:"realm"`
	URL     string    `json:"url"`
	Default bool      `json:"default"` // new instances go there unless told otherwise
	Created time.Time `json:"created"`
}
