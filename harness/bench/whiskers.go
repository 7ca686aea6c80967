package main

import (
	"fmt"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// whiskers draw a line from the minimum to the maximum on each bar of a chart, and the median in digits above it.
type whiskers struct {
	offset vg.Length
	bars   []whisker
}

type whisker struct {
	x float64
	stats
}

// Plot implements plot.Plotter.
func (w whiskers) Plot(c draw.Canvas, p *plot.Plot) {
	toX, toY := p.Transforms(&c)
	line := draw.LineStyle{Color: p.X.Color, Width: vg.Points(0.7)}
	style := p.X.Tick.Label
	style.Font.Size = vg.Points(7)
	style.XAlign, style.YAlign = text.XCenter, text.YBottom
	for _, bar := range w.bars {
		x := toX(bar.x) + w.offset
		c.StrokeLine2(line, x, toY(bar.Min), x, toY(bar.Max))
		c.FillText(style, vg.Point{X: x, Y: toY(bar.Max) + vg.Points(2)}, fmt.Sprintf("%.0f", bar.Median))
	}
}
