"""Faults of official files and of stores, to be planted in small trees and found by import and verification."""
