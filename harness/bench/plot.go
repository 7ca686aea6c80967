package main

import (
	"fmt"
	"image/color"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

var palette = map[contender]color.Color{
	none:    color.Gray{Y: 0xc4},
	noop:    color.Gray{Y: 0x8c},
	builtin: color.RGBA{R: 0xd9, G: 0x8a, B: 0x3a, A: 0xff},
	ours:    color.RGBA{R: 0x1f, G: 0x6f, B: 0xb4, A: 0xff},
}

var shortTitles = map[string]string{
	"a": "hot client", "b": "Zipf", "c": "uniform", "c256": "uniform", "d": "flood", "e": "circuit open", "f": "two gateways", "g": "three limits",
}

// drawCase writes the CPU of a request as an SVG: a group of bars for each workload, with whiskers from the minimum to the maximum.
func drawCase(c *oneCase, path string) error {
	p := plot.New()
	p.Title.Text = c.Configuration.String() + "\nCPU of a request, Traefik and Redis"
	p.Title.Padding = vg.Points(8)
	p.Y.Label.Text = "µs, median; whiskers: minimum and maximum"
	p.Y.Min = 0
	p.Legend.Top = true
	p.Legend.Left = true
	p.Legend.Padding = vg.Points(3)
	p.BackgroundColor = color.White
	p.Add(plotter.NewGrid())
	var bars []contender
	for _, bar := range []contender{none, noop, builtin, ours} {
		if _, measured := c.Results[0].Medians[bar]; measured || bar == builtin {
			bars = append(bars, bar)
		}
	}
	const width = 15
	var names []string
	for _, r := range c.Results {
		names = append(names, r.Workload.Name+": "+shortTitles[r.Workload.Name])
	}
	top := 0.0
	for i, bar := range bars {
		offset := vg.Points((float64(i) - float64(len(bars)-1)/2) * width)
		var values plotter.Values
		w := whiskers{offset: offset}
		for x, r := range c.Results {
			who := bar
			if _, alone := r.Medians[builtinOpen]; bar == builtin && alone {
				who = builtinOpen
			}
			s := r.Medians[who]["cpu"]
			values = append(values, s.Median)
			w.bars = append(w.bars, whisker{float64(x), s})
			top = max(top, s.Max)
		}
		chart, err := plotter.NewBarChart(values, vg.Points(width))
		if err != nil {
			return err
		}
		chart.Color = palette[bar]
		chart.LineStyle.Width = 0
		chart.Offset = offset
		p.Add(chart, w)
		p.Legend.Add(string(bar), chart)
	}
	p.Y.Max = top * 1.3
	p.NominalX(names...)
	p.X.Min, p.X.Max = -0.6, float64(len(names))-0.4
	if err := p.Save(vg.Points(760), vg.Points(340), path); err != nil {
		return fmt.Errorf("the plot: %w", err)
	}
	return nil
}
