// Command icon draws the plugin's icon for the catalogue into the file that its argument names: a bucket of tokens within a
// circuit that is open at one side.
//
// To change it, change the figures here: go run ./bundle/icon .assets/icon.png
package main

import (
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"os"
)

const (
	size    = 256
	samples = 4 // per pixel and direction
)

var (
	background = color.NRGBA{R: 0x12, G: 0x2b, B: 0x4a, A: 0xff}
	circuit    = color.NRGBA{R: 0x37, G: 0xc8, B: 0xab, A: 0xff}
	bucket     = color.NRGBA{R: 0xf4, G: 0xf7, B: 0xfb, A: 0xff}
	token      = color.NRGBA{R: 0xff, G: 0xb3, B: 0x3a, A: 0xff}
	nothing    = color.NRGBA{}
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: icon FILE")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "icon:", err)
		os.Exit(1)
	}
}

func write(path string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := png.Encode(file, draw()); err != nil {
		file.Close()
		return err
	}
	return file.Close()
}

// draw gives each pixel the mean of its samples.
func draw() *image.NRGBA {
	icon := image.NewNRGBA(image.Rect(0, 0, size, size))
	for y := 0; y < size; y++ {
		for x := 0; x < size; x++ {
			icon.SetNRGBA(x, y, pixel(x, y))
		}
	}
	return icon
}

func pixel(x, y int) color.NRGBA {
	var r, g, b, a int
	for i := 0; i < samples*samples; i++ {
		c := at(float64(x)+(float64(i%samples)+0.5)/samples, float64(y)+(float64(i/samples)+0.5)/samples)
		r, g, b, a = r+int(c.R)*int(c.A), g+int(c.G)*int(c.A), b+int(c.B)*int(c.A), a+int(c.A)
	}
	if a == 0 {
		return nothing
	}
	return color.NRGBA{R: uint8(r / a), G: uint8(g / a), B: uint8(b / a), A: uint8(a / (samples * samples))}
}

// at returns the colour of a point.
func at(x, y float64) color.NRGBA {
	switch {
	case !inSquare(x, y):
		return nothing
	case inDisc(x, y, 108, 128, 11), inDisc(x, y, 148, 128, 11), inDisc(x, y, 128, 96, 11), inDisc(x, y, 128, 160, 11):
		return token
	case onBucket(x, y):
		return bucket
	case onCircuit(x, y):
		return circuit
	}
	return background
}

// inSquare is a square with round corners.
func inSquare(x, y float64) bool {
	const radius = 48
	dx := math.Max(math.Abs(x-size/2)-(size/2-radius), 0)
	dy := math.Max(math.Abs(y-size/2)-(size/2-radius), 0)
	return math.Hypot(dx, dy) <= radius
}

func inDisc(x, y, centreX, centreY, radius float64) bool {
	return math.Hypot(x-centreX, y-centreY) <= radius
}

// onBucket is the wall of a bucket that is wider at its top.
func onBucket(x, y float64) bool {
	const top, bottom, wall = 104, 186, 10
	if y < top || y > bottom {
		return false
	}
	half := 54 - (y-top)*0.22
	dx := math.Abs(x - size/2)
	return dx <= half && (dx >= half-wall || y >= bottom-wall)
}

// onCircuit is a ring with a gap at its upper right, and a contact at each end of the gap.
func onCircuit(x, y float64) bool {
	const radius, half = 96.0, 7.0
	dx, dy := x-size/2, size/2-y
	const from, to = 30.0, 62.0 // degrees
	for _, end := range []float64{from, to} {
		sin, cos := math.Sincos(end * math.Pi / 180)
		if math.Hypot(dx-radius*cos, dy-radius*sin) <= half+5 {
			return true
		}
	}
	angle := math.Atan2(dy, dx) * 180 / math.Pi
	return math.Abs(math.Hypot(dx, dy)-radius) <= half && (angle < from || angle > to)
}
