package store

import "strings"

const slots = 16384 // of a cluster

// slotOf returns the slot of a key: CRC16 (XMODEM) of its hash tag, or of the whole key if it has none.
func slotOf(key string) int {
	if from := strings.Index(key, "{"); from >= 0 {
		if to := strings.Index(key[from+1:], "}"); to > 0 {
			key = key[from+1 : from+1+to]
		}
	}
	crc := 0
	for i := 0; i < len(key); i++ {
		crc ^= int(key[i]) << 8
		for bit := 0; bit < 8; bit++ {
			crc <<= 1
			if crc&0x10000 != 0 {
				crc ^= 0x11021
			}
		}
	}
	return crc % slots
}
