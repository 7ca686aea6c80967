package main

import (
	"fmt"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// whiskers are a line from the least to the most on each bar of a chart, and its median in digits above.
type whiskers struct {
	offset vg.Length
	bars   []whisker
}

type whisker struct {
	x float64
	figures
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
		c.StrokeLine2(line, x, toY(bar.Least), x, toY(bar.Most))
		c.FillText(style, vg.Point{X: x, Y: toY(bar.Most) + vg.Points(2)}, fmt.Sprintf("%.0f", bar.Median))
	}
}
