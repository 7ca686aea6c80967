#!/bin/sh
# Starts a node of the cluster and joins it to the node redis.
#   node.sh slots <first> <last>    a master with these slots
#   node.sh replica <master>        a replica of that node
redis-server --port 6379 --dir /data --protected-mode no --save "" --cluster-enabled yes --cluster-node-timeout 2000 &
server=$!
trap 'kill "$server"' TERM INT
until redis-cli ping | grep -q PONG; do sleep 0.2; done

if [ "$1" = slots ]; then
	redis-cli cluster addslotsrange "$2" "$3"
fi
# A node is joined by its address, under which the others see it.
address=$(hostname -i | cut -d ' ' -f 1)
until redis-cli -h redis cluster meet "$address" 6379 | grep -q OK; do sleep 0.2; done
if [ "$1" = replica ]; then
	until redis-cli cluster replicate "$(redis-cli -h "$2" cluster myid)" | grep -q OK; do sleep 0.2; done
fi
wait "$server"
