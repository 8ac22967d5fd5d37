"""The controller runtime: work queue, reconcilers, leases. It knows no kind but Lease and Event."""
