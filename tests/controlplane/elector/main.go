// A program that campaigns for a Lease with client-go's leaderelection, as a controller in Go does, and does nothing
// while it leads but say so: one JSON line when it begins, one when it ends. The tests have it contend with ours.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"log"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

func say(identity, message string) {
	line := map[string]string{"ts": time.Now().UTC().Format(time.RFC3339Nano), "msg": message, "identity": identity}
	if err := json.NewEncoder(os.Stdout).Encode(line); err != nil {
		log.Fatal(err)
	}
}

func main() {
	kubeconfig := flag.String("kubeconfig", "", "kubeconfig file")
	namespace := flag.String("namespace", "", "namespace of the Lease")
	name := flag.String("name", "", "name of the Lease")
	identity := flag.String("identity", "", "who to be in the Lease")
	duration := flag.Duration("lease-duration", 15*time.Second, "a Lease not renewed for so long is free")
	deadline := flag.Duration("renew-deadline", 10*time.Second, "a leader that can't renew for so long stops")
	retry := flag.Duration("retry-period", 2*time.Second, "between two tries")
	flag.Parse()

	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		log.Fatal(err)
	}
	config.QPS = -1 // no limit of its own: its default is below what short periods ask for
	lock := &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: *namespace, Name: *name},
		Client:     coordinationv1.NewForConfigOrDie(config),
		LockConfig: resourcelock.ResourceLockConfig{Identity: *identity},
	}

	// The work ends before the Lease is given back. The library's own OnStoppedLeading comes after it was.
	campaign, release := context.WithCancel(context.Background())
	told, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var work sync.Mutex
	leading, over := false, false
	started := func(context.Context) {
		work.Lock()
		defer work.Unlock()
		if !over {
			leading = true
			say(*identity, "started leading")
		}
	}
	stopped := func() {
		work.Lock()
		defer work.Unlock()
		if leading && !over {
			say(*identity, "stopped leading")
		}
		over = true
	}
	go func() {
		<-told.Done()
		stopped()
		release()
	}()
	say(*identity, "campaigns")
	leaderelection.RunOrDie(campaign, leaderelection.LeaderElectionConfig{
		Lock:            lock,
		LeaseDuration:   *duration,
		RenewDeadline:   *deadline,
		RetryPeriod:     *retry,
		ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: started,
			OnStoppedLeading: stopped,
		},
	})
	if told.Err() == nil {
		log.Fatal("the Lease is lost")
	}
}
