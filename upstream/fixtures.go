package main

// condition is the body of an answer that says how the service is.
type condition struct {
	Status string `json:"status"`
}

type user struct {
	ID   int    `json:"id"`
	Role string `json:"role"`
}

type product struct {
	ID    int     `json:"id"`
	Title string  `json:"title"`
	Price float64 `json:"price"`
}

var (
	healthy = condition{"healthy"}
	okay    = condition{"ok"}
	failed  = problem{"failed on purpose"}

	users = []user{
		{1, "reader"},
		{2, "writer"},
		{3, "admin"},
	}

	products = []product{
		{1, "Lamp", 24.9},
		{2, "Chair", 79},
		{3, "Notebook", 3.5},
	}
)
