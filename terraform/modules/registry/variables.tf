variable "repositories" {
  description = "Image repositories"
  type        = set(string)
  default     = ["engine", "engine-loadtest"]
}

variable "replica_regions" {
  description = "Regions that every image is copied to, so that a region pulls from itself"
  type        = set(string)
  default     = []
}

variable "kms_key_arn" {
  description = "Key of the images"
  type        = string
}

variable "keep_images" {
  description = "Tagged images that are kept per repository; older ones go"
  type        = number
  default     = 100

  validation {
    condition     = 10 <= var.keep_images
    error_message = "keep_images is 10 or more: a rollback must find its image."
  }
}

variable "force_delete" {
  description = "Let terraform destroy delete repositories that hold images; for trial environments only"
  type        = bool
  default     = false
}
