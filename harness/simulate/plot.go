package simulate

import (
	"fmt"
	"os"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	vgdraw "gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// draw writes the outcomes under one limit as an SVG: what is left unused, and the calls of Redis, over the size of the
// fleet.
func draw(outcomes []outcome, l limit, path string) error {
	unused := panel(fmt.Sprintf("capacity %d, %d a second", l.Capacity, l.Rate), "allowed, but not let through: %")
	calls := panel("", "Redis calls a request")
	calls.Y.Min, calls.Y.Max = 0, 1
	for i, c := range clients {
		var left, asked plotter.XYs
		for _, o := range outcomes {
			if o.Client == c.Name && o.Capacity == l.Capacity && o.Rate == l.Rate {
				left = append(left, plotter.XY{X: float64(o.Gateways), Y: 100 * o.unused()})
				asked = append(asked, plotter.XY{X: float64(o.Gateways), Y: o.callsPerRequest()})
			}
		}
		if err := addLine(unused, i, left, c.Name); err != nil {
			return err
		}
		if err := addLine(calls, i, asked, ""); err != nil {
			return err
		}
	}
	unused.Legend.Top = true
	unused.Legend.Left = true
	canvas := vgsvg.New(vg.Points(760), vg.Points(330))
	both := [][]*plot.Plot{{unused, calls}}
	tiles := vgdraw.Tiles{Rows: 1, Cols: 2, PadX: vg.Points(20), PadTop: vg.Points(4), PadBottom: vg.Points(4), PadLeft: vg.Points(4), PadRight: vg.Points(8)}
	for i, area := range plot.Align(both, tiles, vgdraw.New(canvas))[0] {
		both[0][i].Draw(area)
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

func panel(title, y string) *plot.Plot {
	p := plot.New()
	p.Title.Text = title
	p.X.Label.Text = "gateways"
	p.Y.Label.Text = y
	p.Y.Min = 0
	p.X.Scale = plot.LogScale{}
	p.X.Tick.Marker = plot.LogTicks{Prec: -1}
	p.Add(plotter.NewGrid())
	return p
}

func addLine(p *plot.Plot, i int, points plotter.XYs, name string) error {
	line, marks, err := plotter.NewLinePoints(points)
	if err != nil {
		return err
	}
	line.Color = plotutil.Color(i)
	line.Width = vg.Points(1.2)
	marks.Color = plotutil.Color(i)
	marks.Shape = plotutil.Shape(i)
	p.Add(line, marks)
	if name != "" {
		p.Legend.Add(name, line, marks)
	}
	return nil
}
