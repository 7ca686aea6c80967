package simulate

import (
	"fmt"
	"image/color"
	"os"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	vgdraw "gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

var colors = []color.Color{
	color.RGBA{R: 0x1f, G: 0x77, B: 0xb4, A: 0xff}, color.RGBA{R: 0x17, G: 0xbe, B: 0xcf, A: 0xff},
	color.RGBA{R: 0xd6, G: 0x27, B: 0x28, A: 0xff}, color.RGBA{R: 0xff, G: 0x7f, B: 0x0e, A: 0xff},
	color.RGBA{R: 0x94, G: 0x67, B: 0xbd, A: 0xff}, color.RGBA{R: 0x8c, G: 0x56, B: 0x4b, A: 0xff},
	color.RGBA{R: 0x2c, G: 0xa0, B: 0x2c, A: 0xff}, color.RGBA{R: 0x7f, G: 0x7f, B: 0x7f, A: 0xff},
}

// draw writes the outcomes under one limit as an SVG: what is left unused, and the calls of Redis, over the size of the
// fleet.
func draw(outcomes []outcome, l limit, path string) error {
	unused := panel(fmt.Sprintf("capacity %d, %d a second", l.Capacity, l.Rate), "allowed, but not let through: %")
	unused.Y.Max = 10 // with room for the legend
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
	p.BackgroundColor = color.White
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
	line.Color = colors[i%len(colors)]
	line.Width = vg.Points(1.2)
	line.Dashes = plotutil.Dashes(i % 2)
	marks.Color = colors[i%len(colors)]
	marks.Shape = plotutil.Shape(i)
	p.Add(line, marks)
	if name != "" {
		p.Legend.Add(name, line, marks)
	}
	return nil
}
