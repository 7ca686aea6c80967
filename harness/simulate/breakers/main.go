// Command breakers draws what the simulation of circuit breakers found: breakers <outcomes.json> <plot.svg>. The simulation is a test of the
// package breaker.
package main

import (
	"encoding/json"
	"fmt"
	"image/color"
	"os"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	vgdraw "gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// outcome is a run, as the test writes it.
type outcome struct {
	Rules    string  `json:"rules"`
	Gateways int     `json:"gateways"`
	Errors   float64 `json:"errors"`
	Opened   float64 `json:"opened"`
	Failed   float64 `json:"failed"`
	Openings float64 `json:"openings"`
	Hours    float64 `json:"hours"`
}

// colors are those of the rules, by their order; shapes and dashes those of the fleets.
var (
	colors = []color.Color{
		color.RGBA{R: 0xd6, G: 0x27, B: 0x28, A: 0xff}, color.RGBA{R: 0xff, G: 0x7f, B: 0x0e, A: 0xff}, color.RGBA{R: 0x1f, G: 0x77, B: 0xb4, A: 0xff},
	}
	shapes = []vgdraw.GlyphDrawer{vgdraw.CircleGlyph{}, vgdraw.TriangleGlyph{}, vgdraw.SquareGlyph{}}
	dashes = [][]vg.Length{{}, {vg.Points(4), vg.Points(2)}, {vg.Points(1), vg.Points(2)}}
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: breakers <outcomes.json> <plot.svg>")
		os.Exit(2)
	}
	if err := draw(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// series is the runs of one rule in one fleet.
type series struct {
	rules, fleet int // places in the order of appearance
	name         string
	runs         []outcome
}

func seriesOf(outcomes []outcome) (all []*series) {
	found := map[string]*series{}
	rules, fleets := map[string]int{}, map[int]int{}
	for _, o := range outcomes {
		if _, known := rules[o.Rules]; !known {
			rules[o.Rules] = len(rules)
		}
		if _, known := fleets[o.Gateways]; !known {
			fleets[o.Gateways] = len(fleets)
		}
		key := fmt.Sprintf("%s, %d gateways", o.Rules, o.Gateways)
		if o.Gateways == 1 {
			key = o.Rules + ", 1 gateway"
		}
		if found[key] == nil {
			found[key] = &series{rules: rules[o.Rules], fleet: fleets[o.Gateways], name: key}
			all = append(all, found[key])
		}
		found[key].runs = append(found[key].runs, o)
	}
	return all
}

// draw writes an SVG: how often a circuit opens, how long that takes, and what fails before, over the share of errors.
func draw(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	var outcomes []outcome
	if err := json.Unmarshal(text, &outcomes); err != nil {
		return err
	}
	panels := []*plot.Plot{panel("openings an hour"), panel("seconds until it opens"), panel("failed requests before")}
	values := []func(o outcome) float64{
		func(o outcome) float64 { return o.Openings / o.Hours },
		func(o outcome) float64 { return o.Opened },
		func(o outcome) float64 { return o.Failed },
	}
	for _, s := range seriesOf(outcomes) {
		for i, p := range panels {
			if err := s.add(p, values[i], i == 0); err != nil {
				return err
			}
		}
	}
	panels[0].Legend.Top = true
	panels[0].Legend.Left = true
	return save(panels, to)
}

func panel(y string) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = color.White
	p.X.Label.Text = "% of answers that are errors"
	p.X.Min, p.X.Max = 0, 62
	p.Y.Label.Text = y
	p.Y.Scale = plot.LogScale{}
	p.Y.Tick.Marker = plot.LogTicks{Prec: -1}
	p.Y.Min, p.Y.Max = 1, 10
	p.Add(plotter.NewGrid())
	return p
}

// add adds a line without the runs in which the circuit did not open.
func (s *series) add(p *plot.Plot, value func(outcome) float64, named bool) error {
	var points plotter.XYs
	for _, o := range s.runs {
		if o.Openings > 0 {
			points = append(points, plotter.XY{X: o.Errors, Y: value(o)})
		}
	}
	if len(points) == 0 {
		return nil
	}
	line, marks, err := plotter.NewLinePoints(points)
	if err != nil {
		return err
	}
	line.Color = colors[s.rules%len(colors)]
	line.Width = vg.Points(1.2)
	line.Dashes = dashes[s.fleet%len(dashes)]
	marks.Color = line.Color
	marks.Shape = shapes[s.fleet%len(shapes)]
	p.Add(line, marks)
	if named {
		p.Legend.Add(s.name, line, marks)
	}
	return nil
}

func save(panels []*plot.Plot, path string) error {
	canvas := vgsvg.New(vg.Points(960), vg.Points(360))
	tiles := vgdraw.Tiles{Rows: 1, Cols: len(panels), PadX: vg.Points(20), PadTop: vg.Points(4), PadBottom: vg.Points(4), PadLeft: vg.Points(4), PadRight: vg.Points(8)}
	for i, area := range plot.Align([][]*plot.Plot{panels}, tiles, vgdraw.New(canvas))[0] {
		panels[i].Draw(area)
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := canvas.WriteTo(file); err != nil {
		return err
	}
	return file.Close()
}
